//! A mailbox that two worlds share: a word that says whose turn it is, and a letter.
//!
//! The other world may write to all of it at any time. So the clerk, who is ours, takes a copy of each letter, believes
//! nothing of it that was not checked in the copy, and looks at no byte twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::machine::other_world::{Agent, OtherSide, OtherWorld, OurProcessor};
use pagewarden::machine::{Machine, MachineConfig, Ticks};
use pagewarden::pager::Pager;
use pagewarden::phys::{Claim, OtherAccess, PageTableWindows, PhysMutPtr, VmapManager};
use pagewarden::{Limits, PageCount, PageRange, ResourceLedger};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Outcome;

type Manager = VmapManager<PageTableWindows<Machine, OurProcessor>>;

/// Frames of the other world.
const FOREIGN: u64 = 16;
/// Of these, where the word is, and where the letter.
const PLACES: [u64; 2] = [3, 11];
const TEXT_MAX: usize = 48;

/// The mailbox is empty, and the other world's.
const EMPTY: u64 = 0;
/// There is a letter.
const POSTED: u64 = 1;
/// The clerk reads it.
const TAKEN: u64 = 2;
/// The clerk has answered in its place.
const ANSWERED: u64 = 3;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Letter {
    len: u64,
    text: [u8; TEXT_MAX],
}

impl Letter {
    /// As much of `text` as there is room for.
    pub(crate) fn new(text: &[u8]) -> Self {
        let len = text.len().min(TEXT_MAX);
        let mut letter = Self { len: len as u64, text: [0; TEXT_MAX] };
        letter.text[..len].copy_from_slice(&text[..len]);
        letter
    }

    /// The text, if its length is one that it can have.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        self.text.get(..usize::try_from(self.len).ok()?)
    }
}

/// A manager of windows, and the other world that they show.
pub(crate) struct Border {
    pub(crate) manager: Arc<Manager>,
    pub(crate) other: Arc<OtherWorld>,
    places: [FrameNumber; 2],
}

impl Border {
    /// A machine of which the other world has the last frames.
    pub(crate) fn new() -> Outcome<Self> {
        let machine = Arc::new(Machine::new(MachineConfig::default()));
        let ours = machine.frames() - FOREIGN;
        let run = |first, frames| FrameRange::new(FrameNumber::new(first)?, PageCount::new(frames));
        let mut map = MemoryMap::new();
        map.add(run(0, ours).ok_or("no frames")?, MemoryKind::Usable)?;
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let pager = Pager::new(machine.clone(), Frames::new(&map, FramesConfig::default())?, ledger.root())?;
        let other = Arc::new(OtherWorld::new(&machine, run(ours, FOREIGN).ok_or("no frames")?));
        let space = PageRange::from_pages(0x4_0000, PageCount::new(64)).ok_or("no window space")?;
        let windows = other.windows(&pager, ledger.root(), space, 0)?;
        let [Some(word), Some(letter)] = PLACES.map(|place| FrameNumber::new(ours + place)) else {
            return Err("no mailbox".into());
        };
        let manager = Arc::new(VmapManager::new(windows, Ticks::new()));
        other.act(|side| side.store(word.start(), &EMPTY.to_le_bytes()))?;
        Ok(Self { manager, other, places: [word, letter] })
    }
}

/// Who reads letters and answers them.
pub(crate) struct Clerk {
    turn: PhysMutPtr<u64, Arc<Manager>>,
    letter: PhysMutPtr<Letter, Arc<Manager>>,
    sheet: FrameRange,
}

/// What was done about a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// There was none.
    Nothing,
    Answered,
    /// It made no sense.
    Refused,
}

impl Clerk {
    pub(crate) fn new(border: &Border) -> Outcome<Self> {
        let [word, letter] = border.places;
        let mut turn = PhysMutPtr::new(border.manager.clone(), &[word], 0, 1)?;
        // It is looked at often: the window stays.
        turn.map(Claim::Reserve)?;
        let sheet = FrameRange::new(letter, PageCount::new(1)).ok_or("no letter")?;
        Ok(Self { turn, letter: PhysMutPtr::new(border.manager.clone(), &[letter], 0, 1)?, sheet })
    }

    /// Answers a letter, if there is one.
    pub(crate) fn serve(&self) -> Outcome<Served> {
        if self.turn.compare_exchange_at(0, POSTED, TAKEN)? != POSTED {
            return Ok(Served::Nothing);
        }
        // The one look at it.
        let letter = self.letter.read_at(0)?;
        let (served, answer) = match letter.text() {
            Some(text) => (Served::Answered, text.to_ascii_uppercase()),
            None => (Served::Refused, b"this cannot be read".to_vec()),
        };
        self.letter.write_at(0, Letter::new(&answer))?;
        self.turn.write_at(0, ANSWERED)?;
        Ok(served)
    }

    /// The same, with the other world kept from the letter meanwhile.
    pub(crate) fn serve_protected(&self, border: &Border) -> Outcome<Served> {
        if self.turn.read_at(0)? != POSTED {
            return Ok(Served::Nothing);
        }
        let protection = border.manager.protect(self.sheet, OtherAccess::Read)?;
        let served = self.serve()?;
        protection.unprotect()?;
        Ok(served)
    }
}

/// Whether a letter is changed while it is read, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cheats {
    No,
    Yes,
}

/// Who writes letters: the other world.
pub(crate) struct Writer {
    places: [FrameNumber; 2],
    letters: VecDeque<Letter>,
    pub(crate) cheats: Cheats,
    answers: Sender<String>,
}

impl Writer {
    pub(crate) fn new(border: &Border, texts: &[&str], answers: Sender<String>) -> Self {
        let letters = texts.iter().map(|text| Letter::new(text.as_bytes())).collect();
        Self { places: border.places, letters, cheats: Cheats::No, answers }
    }
}

impl Agent for Writer {
    fn turn(&mut self, side: &OtherSide<'_>) {
        let [word, sheet] = self.places.map(FrameNumber::start);
        let mut turn = [0; 8];
        let mut letter = Letter::new(&[]);
        // What it is not allowed now, it does not do.
        if side.load(word, &mut turn).is_err() || side.load(sheet, letter.as_mut_bytes()).is_err() {
            return;
        }
        let next = match u64::from_le_bytes(turn) {
            EMPTY => match self.letters.pop_front() {
                Some(letter) if side.store(sheet, letter.as_bytes()).is_ok() => POSTED,
                Some(letter) => return self.letters.push_front(letter),
                None => return,
            },
            TAKEN if self.cheats == Cheats::Yes => {
                self.cheats = Cheats::No;
                let _ = side.store(sheet, &u64::MAX.to_le_bytes());
                return;
            }
            ANSWERED => {
                let text = letter.text().unwrap_or(b"?");
                let _ = self.answers.send(String::from_utf8_lossy(text).into_owned());
                EMPTY
            }
            _ => return,
        };
        let _ = side.store(word, &next.to_le_bytes());
    }
}
