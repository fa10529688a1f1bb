//! Memory of the other world, by pointers that are safe: a device writes to it, and so does another processor, as it likes.
//!
//! Here the other processor is somebody of the other world: it reaches its memory by the direct map, and knows of no window.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Debug;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::mmu::PhysMem;
use pagewarden::page_table::EntryFlags;
use pagewarden::phys::{
    Claim, CopyFault, Mode, OtherAccess, Permission, PhysConstPtr, PhysError, PhysMutPtr, PhysRange, WindowAccess,
};
use pagewarden::{Errno, PAGE_SIZE, PageCount, PhysAddr, VirtAddr};

use crate::edu::{self, Direction, Edu};
use crate::machine::kernel;
use crate::memory::{DIRECT_MAP, Hardware, IMAGE};
use crate::probe::{self, Try};
use crate::transcript::{note, report};
use crate::windows::{self, KernelWindows, Windows};
use crate::{areas, errand};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Words of a page.
const WORDS: usize = (PAGE_SIZE / 8) as usize;

/// Frame number `index` of the other world.
fn frame(index: u64) -> FrameNumber {
    let frame = FrameNumber::new(kernel().other_world.first().get() + index);
    frame.filter(|frame| kernel().other_world.contains(*frame)).unwrap_or_else(|| unreachable!("there are 16 of them"))
}

/// What the other world has as word number `index` of a frame.
fn there(frame: FrameNumber, index: usize) -> u64 {
    Hardware.load(frame.at(8 * index as u64))
}

/// Has the other world store a word.
fn store_there(frame: FrameNumber, index: usize, word: u64) {
    Hardware.store(frame.at(8 * index as u64), word);
}

/// Ends a check unless something holds, which is said to be otherwise.
macro_rules! ensure {
    ($holds:expr, $($otherwise:tt)*) => {
        if !$holds {
            return Err(format!($($otherwise)*).into());
        }
    };
}

fn expect<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Outcome {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?}, not {wanted:?}").into()) }
}

/// Waits until something has happened.
fn wait(what: &str, mut has_happened: impl FnMut() -> bool) -> Outcome {
    let end = windows::now() + PATIENCE;
    while !has_happened() {
        if windows::now() > end {
            return Err(format!("for {PATIENCE:?}, {what}").into());
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// All checks of this part.
pub(super) fn check() {
    let windows = match windows::manager() {
        Ok(windows) => windows,
        Err(error) => return report(format_args!("there is a space for windows"), Err(error)),
    };
    report(
        format_args!("scattered pages of another world are one window, in the order asked for"),
        scattered(&windows),
    );
    report(format_args!("a window on memory of ours, or of nobody's, is refused"), ours(&windows));
    report(format_args!("pointers that make no sense are refused, each by its error"), senseless(&windows));
    report(format_args!("a store through a window for loads faults, and is an error"), read_only(&windows));
    report(format_args!("a copy that leaves its window ends at the fault, to the byte"), half_a_copy(&windows));
    report(format_args!("an address of a window that is gone faults, and is an error"), gone(&windows));
    report(format_args!("what a window shows is not run: error code 17 (present, fetch)"), not_run(&windows));
    report(format_args!("a window is the kernel's, in all spaces, and gone without a trace"), entries(&windows));
    report(format_args!("a range that is reserved to write is refused to others"), reserved(&windows));
    report(format_args!("who waits too long for a reservation is told so"), waits_too_long(&windows));
    check_device(&windows);
    if errand::can_post() {
        check_beside(&windows);
    } else {
        note!("one processor: nobody writes to the other world's memory meanwhile");
    }
    report(format_args!("no window and no reservation is left"), nothing_left(&windows));
}

fn scattered(windows: &Windows) -> Outcome {
    let frames = [frame(9), frame(2), frame(12), frame(3)];
    let words = PhysMutPtr::<u64, _>::new(windows, &frames, 8, 3 * WORDS)?;
    let written: Vec<u64> = (0..3 * WORDS as u64).map(|index| index << 32 | 0xfeed).collect();
    words.write_slice_at(0, &written)?;
    for (index, word) in written.iter().enumerate() {
        let place = index + 1;
        expect("a word of the other world", there(frames[place / WORDS], place % WORDS), *word)?;
    }
    store_there(frames[3], 0, 77);
    expect("the last word", words.read_at(3 * WORDS - 1)?, 77)?;
    let mut read = vec![0; 3 * WORDS - 1];
    words.read_slice_at(0, &mut read)?;
    ensure!(read == written[..3 * WORDS - 1], "other words are read than were written");
    Ok(())
}

/// The error of something that should not work.
fn error_of<T>(outcome: Result<T, PhysError>) -> Option<PhysError> {
    outcome.err()
}

fn ours(windows: &Windows) -> Outcome {
    let world = kernel().other_world;
    let [text, ..] = areas::image();
    let number = |address: u64| FrameNumber::new(address / PAGE_SIZE).ok_or("no such frame");
    let not_foreign = [
        ("a table", kernel().space.root()),
        ("a frame of the heap", number(heap_address() - DIRECT_MAP)?),
        ("code", number(text - IMAGE)?),
        ("the frame before", number(world.first().start().as_u64() - 1)?),
        ("the frame behind", number(world.end() * PAGE_SIZE)?),
        ("a frame that is not there", number(1 << 40)?),
    ];
    for (what, mine) in not_foreign {
        let refused = Some(PhysError::Owned(mine));
        expect(what, error_of(windows.vmap(&[frame(0), mine], Permission::Read, Claim::Beside)), refused)?;
        expect(what, error_of(PhysMutPtr::<u8, _>::new(windows, &[mine], 0, 1)), refused)?;
    }
    expect("windows", windows.live(), 0)
}

/// Where an object is that the heap has.
fn heap_address() -> u64 {
    let object = Box::new(0_u8);
    (&raw const *object).addr() as u64
}

fn senseless(windows: &Windows) -> Outcome {
    let pages = [frame(0), frame(1)];
    let pointer = |offset, count| PhysMutPtr::<u64, _>::new(windows, &pages, offset, count);
    expect("an offset beyond the page", error_of(pointer(PAGE_SIZE, 1)), Some(PhysError::Invalid))?;
    expect("one word too many", error_of(pointer(8, 2 * WORDS)), Some(PhysError::OutOfBounds))?;
    expect("too many bytes", error_of(pointer(0, usize::MAX / 4)), Some(PhysError::Overflow))?;
    let twice = PhysConstPtr::<u64, _>::new(windows, &[frame(0), frame(1), frame(0)], 0, 1);
    expect("a page twice", error_of(twice), Some(PhysError::DuplicatePage(frame(0))))?;
    let none = PhysConstPtr::<u64, _>::new(windows, &[], 0, 0);
    expect("no page", error_of(none), Some(PhysError::Invalid))?;
    let last = PhysAddr::new((1 << PhysAddr::BITS) - 8).ok_or("no such address")?;
    let beyond = PhysConstPtr::<u64, _>::contiguous(windows, last, 2);
    expect("words beyond physical memory", error_of(beyond), Some(PhysError::Overflow))?;
    let crooked = pointer(4, 2)?;
    expect("a crooked word", error_of(crooked.compare_exchange_at(0, 0, 0)), Some(PhysError::Unaligned))?;
    expect("an index too far", error_of(crooked.read_at(2)), Some(PhysError::OutOfBounds))?;
    expect("an index that has no place", error_of(crooked.read_at(usize::MAX)), Some(PhysError::Overflow))?;
    let one = FrameRange::new(frame(0), PageCount::new(1)).ok_or("no frame")?;
    let kept_out = windows.protect(one, OtherAccess::None);
    expect("keeping a device out", error_of(kept_out), Some(PhysError::Unsupported))?;
    expect("windows", windows.live(), 0)
}

fn read_only(windows: &Windows) -> Outcome {
    store_there(frame(4), 0, 41);
    let window = windows.vmap(&[frame(4)], Permission::Read, Claim::Beside)?;
    let mut found = [0; 8];
    window.read(0, &mut found)?;
    expect("what is read", u64::from_ne_bytes(found), 41)?;
    let words = [42_u64, 43].map(u64::to_ne_bytes);
    expect("a store by the mapping", error_of(window.write(0, &words[0])), Some(PhysError::ReadOnly))?;
    let (start, fault) = (window.window().start(), CopyFault { copied: 0 });
    // The platform is asked behind the mapping's back, and the processor is what refuses.
    let provider = windows.provider();
    expect("a store of a word", provider.store(start, &words[0]), Err(fault))?;
    expect("a store of more", provider.store(start, words.as_flattened()), Err(fault))?;
    let width = pagewarden::phys::WordWidth::Eight;
    expect("an exchange", provider.compare_exchange(start, width, 41, 42), Err(fault))?;
    expect("what is there after all", there(frame(4), 0), 41)?;
    Ok(window.unmap()?)
}

fn half_a_copy(windows: &Windows) -> Outcome {
    let window = windows.vmap(&[frame(4)], Permission::ReadWrite, Claim::Beside)?;
    // Windows do not touch: a copy does not go on in the next one.
    let next = windows.vmap(&[frame(6)], Permission::ReadWrite, Claim::Beside)?;
    let provider = windows.provider();
    let near_end = VirtAddr::new(window.window().end().as_u64() - 11);
    let fault = CopyFault { copied: 11 };
    let mut read = [0xee; 40];
    expect("a store over the end", provider.store(near_end, &[0x33; 40]), Err(fault))?;
    expect("a load over the end", provider.load(near_end, &mut read), Err(fault))?;
    ensure!(read[..11] == [0x33; 11], "what came before the fault is not copied");
    ensure!(read[11..] == [0xee; 29], "something came after the fault");
    let before = VirtAddr::new(window.window().start().as_u64() - 3);
    expect("a load from before", provider.load(before, &mut read), Err(CopyFault { copied: 0 }))?;
    // Not even that far: these are ours, and the kernel would be told what is in them.
    for address in [windows::space().end().as_u64() - 4, heap_address(), 0x1000] {
        let reached = provider.load(VirtAddr::new(address), &mut read);
        expect("a load from elsewhere", reached, Err(CopyFault { copied: 0 }))?;
        expect("by the processor", KernelWindows.load(VirtAddr::new(address), &mut read), reached)?;
    }
    next.unmap()?;
    Ok(window.unmap()?)
}

fn gone(windows: &Windows) -> Outcome {
    let window = windows.vmap(&[frame(4)], Permission::ReadWrite, Claim::Beside)?;
    let start = window.window().start();
    let mut word = [0; 8];
    let provider = windows.provider();
    // The processor knows the page from here on.
    provider.store(start, &[1; 8])?;
    provider.load(start, &mut word)?;
    window.unmap()?;
    let fault = CopyFault { copied: 0 };
    expect("a load", provider.load(start, &mut word), Err(fault))?;
    expect("a store", provider.store(start, &[2; 8]), Err(fault))?;
    expect("what is there", there(frame(4), 0), u64::from_ne_bytes([1; 8]))
}

fn not_run(windows: &Windows) -> Outcome {
    const RETURN: u64 = 0xc3;
    store_there(frame(4), 0, RETURN);
    let window = windows.vmap(&[frame(4)], Permission::ReadWrite, Claim::Beside)?;
    // SAFETY: if it runs, it is a function that returns at once.
    let code = unsafe { probe::attempt(Try::Call, window.window().start().as_u64()) };
    expect("the error code", code, Some(0b1_0001))?;
    Ok(window.unmap()?)
}

fn entries(windows: &Windows) -> Outcome {
    let shown = || {
        let mut shown = Vec::new();
        kernel().space.entries(windows::space(), &mut |span, entry, _| {
            if entry.flags().contains(EntryFlags::PRESENT) {
                shown.push((span.start(), entry.frame(), entry.flags()));
            }
        });
        shown
    };
    expect("what is shown before", shown(), Vec::new())?;
    let window = windows.vmap(&[frame(7), frame(5)], Permission::Read, Claim::Beside)?;
    let seen = shown();
    let frames: Vec<_> = seen.iter().map(|(_, frame, _)| *frame).collect();
    expect("what a window shows", frames, [frame(7), frame(5)].to_vec())?;
    let (wanted, unwanted) = (EntryFlags::GLOBAL | EntryFlags::NO_EXECUTE, EntryFlags::USER | EntryFlags::WRITABLE);
    let is_kernels = |flags: EntryFlags| flags.contains(wanted) && !flags.intersects(unwanted);
    ensure!(seen.iter().all(|(_, _, flags)| is_kernels(*flags)), "a window for loads has other rights");
    expect("where it begins", seen.first().map(|(start, ..)| *start), Some(window.window().start()))?;
    window.unmap()?;
    expect("what is shown after", shown(), Vec::new())
}

fn reserved(windows: &Windows) -> Outcome {
    let writer = PhysMutPtr::<u64, _>::new(windows, &[frame(1)], 0, 4)?;
    let reader = PhysConstPtr::<u64, _>::new(windows, &[frame(1)], 24, 4)?;
    let beside = PhysConstPtr::<u64, _>::new(windows, &[frame(1)], 32, 4)?;
    let held = writer.reserve()?;
    let taken = PhysRange::new(frame(1).start(), 32)?;
    expect("another reservation", error_of(reader.reserve()), Some(PhysError::Reserved(taken)))?;
    let claimed = windows.vmap(&[frame(1)], Permission::Read, Claim::Reserve);
    expect("a window that claims it", error_of(claimed), Some(PhysError::Reserved(taken)))?;
    let other = beside.reserve()?;
    drop(held);
    let two = (reader.reserve()?, reader.reserve()?);
    expect("a writer among readers", error_of(writer.reserve()).map(PhysError::errno), Some(Errno::Busy))?;
    drop((two, other));
    expect("reservations", windows.reservations().len(), 0)
}

fn waits_too_long(windows: &Windows) -> Outcome {
    const TIME: Duration = Duration::from_millis(20);
    let range = PhysRange::of_frame(frame(1));
    let held = windows.reservations().try_reserve(&[range], Mode::Exclusive)?;
    let start = windows::now();
    let waited = windows.reservations().reserve(&[range], Mode::Shared, TIME);
    expect("the wait", error_of(waited), Some(PhysError::TimedOut(range)))?;
    ensure!(windows::now() - start >= TIME, "it ended too early");
    drop(held);
    drop(windows.reservations().reserve(&[range], Mode::Shared, TIME)?);
    Ok(())
}

fn check_device(windows: &Windows) {
    let device = match Edu::new() {
        Ok(device) => device,
        Err(error) => return note!("no DMA device: {error}"),
    };
    report(
        format_args!("a record written through a PhysMutPtr comes back by DMA as it was written"),
        record_by_device(windows, &device),
    );
    report(
        format_args!("DMA into memory while it is being read: every word is old or new"),
        read_meanwhile(windows, &device),
    );
    report(format_args!("the device is told by one at a time, and of no memory but the other world's"), told(device));
}

/// Words that one copy of the device has.
const COPY: usize = (edu::MOST / 8) as usize;

/// What the device has at the end: word number `index`.
fn device_word(index: usize) -> u64 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn record_by_device(windows: &Windows, device: &Edu) -> Outcome {
    // Across the end of a page, on both ways.
    let (from, to) = (frame(0).at(PAGE_SIZE - 24), frame(5).at(PAGE_SIZE - 1000));
    let record: Vec<u64> = (0..COPY).map(device_word).collect();
    PhysMutPtr::<u64, _>::contiguous(windows, from, COPY)?.write_slice_at(0, &record)?;
    device.start(Direction::FromMemory, PhysRange::new(from, edu::MOST)?)?;
    device.finish()?;
    let arrived = PhysMutPtr::<u64, _>::contiguous(windows, to, COPY)?;
    arrived.write_slice_at(0, &[0; COPY])?;
    device.start(Direction::ToMemory, PhysRange::new(to, edu::MOST)?)?;
    device.finish()?;
    for (index, word) in record.iter().enumerate() {
        expect("a word", arrived.read_at(index)?, *word)?;
    }
    Ok(())
}

fn read_meanwhile(windows: &Windows, device: &Edu) -> Outcome {
    const OLD: u64 = 0x0101_0101_0101_0100;
    (0..COPY).for_each(|index| store_there(frame(8), index, OLD));
    let mut words = PhysConstPtr::<u64, _>::new(windows, &[frame(8)], 0, COPY)?;
    words.map(Claim::Beside)?;
    let mut is_new = [false; COPY];
    let mut look = || -> Outcome<usize> {
        for (index, is_new) in is_new.iter_mut().enumerate() {
            match words.read_at(index)? {
                word if word == device_word(index) => *is_new = true,
                OLD if !*is_new => {}
                word => return Err(format!("word {index} is {word:#x}").into()),
            }
        }
        Ok(is_new.iter().filter(|is_new| **is_new).count())
    };
    device.start(Direction::ToMemory, PhysRange::new(frame(8).start(), edu::MOST)?)?;
    let mut looks = Ok(0);
    let mut counts = (0_u64, 0_usize);
    wait("the device has copied", || {
        looks = look();
        counts = (counts.0 + 1, *looks.as_ref().unwrap_or(&0));
        looks.is_err() || !device.is_busy()
    })?;
    looks?;
    ensure!(counts.0 > 1, "nothing was read meanwhile");
    expect("new words at the end", look()?, COPY)?;
    Ok(words.unmap()?)
}

fn told(device: Edu) -> Outcome {
    let start = |address, bytes| device.start(Direction::ToMemory, PhysRange::new(address, bytes)?);
    let table = kernel().space.root().start();
    expect("a table", start(table, 8), Err(Errno::Perm))?;
    let world = kernel().other_world;
    let last = PhysAddr::new(world.end() * PAGE_SIZE - 8).ok_or("no such address")?;
    expect("a byte too far", start(last, 9), Err(Errno::Perm))?;
    expect("too much", start(world.first().start(), edu::MOST + 1), Err(Errno::Inval))?;
    expect("another driver", Edu::new().err(), Some(Errno::Exist))?;
    drop(device);
    expect("the next driver", Edu::new().err(), None)
}

/// Runs `check` while another processor does `act` again and again.
fn against(mut act: impl FnMut() + Send + 'static, check: impl FnOnce() -> Outcome) -> Outcome {
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    let agent = move || {
        while !told.load(Ordering::Acquire) {
            act();
        }
    };
    errand::beside(agent, || {
        let outcome = check();
        is_over.store(true, Ordering::Release);
        outcome
    })
}

fn check_beside(windows: &Arc<Windows>) {
    report(format_args!("an aligned word that another processor writes is one that it wrote"), whole_words(windows));
    report(format_args!("a letter that is copied once is what was checked, whoever changes it"), copied_once(windows));
    report(format_args!("who looks at it twice is fooled"), looked_at_twice(windows));
    report(format_args!("no count of two processors in one word is lost"), counts(windows));
    report(format_args!("a window that is gone is gone on the other processor"), gone_elsewhere(windows));
    report(format_args!("who waits for a reservation of another processor's gets it"), handed_over(windows));
}

fn whole_words(windows: &Windows) -> Outcome {
    const BOTH: [u64; 2] = [0x1111_1111_1111_1111, 0xeeee_eeee_eeee_eeee];
    const CHANGES: u64 = 500;
    store_there(frame(11), 3, BOTH[0]);
    let act = || BOTH.into_iter().for_each(|word| store_there(frame(11), 3, word));
    let mut word = PhysConstPtr::<u64, _>::new(windows, &[frame(11)], 24, 1)?;
    word.map(Claim::Beside)?;
    against(act, || {
        let (mut changes, mut last) = (0, BOTH[0]);
        let mut found = Ok(last);
        wait("the word hardly changes", || {
            found = word.read_at(0);
            let now = *found.as_ref().unwrap_or(&0);
            changes += u64::from(now != last);
            last = now;
            changes >= CHANGES || !BOTH.contains(&now)
        })?;
        ensure!(BOTH.contains(&found?), "{last:#x} was never there");
        Ok(())
    })?;
    Ok(word.unmap()?)
}

/// How many bytes it has, and these.
type Letter = [u64; LETTER];

const LETTER: usize = 8;
const TEXT_MOST: u64 = 8 * (LETTER as u64 - 1);
/// What the other world writes, by turns. The second has a length that is none.
const LETTERS: [Letter; 2] = {
    let mut letters = [[0x6161_6161_6161_6161; LETTER], [u64::MAX; LETTER]];
    letters[0][0] = TEXT_MOST / 2;
    letters
};

/// Writes one letter, then the other.
fn write_letters() {
    for letter in LETTERS {
        for (index, word) in letter.into_iter().enumerate() {
            store_there(frame(13), index, word);
        }
    }
}

fn copied_once(windows: &Windows) -> Outcome {
    const EACH: u64 = 50;
    let mut letter = PhysConstPtr::<Letter, _>::new(windows, &[frame(13)], 0, 1)?;
    write_letters();
    letter.map(Claim::Beside)?;
    let read = || -> Outcome<bool> {
        let [len, text @ ..] = letter.read_at(0)?;
        let text = text.map(u64::to_ne_bytes);
        // What was checked is what is used: there is nothing else to use.
        let Some(text) = usize::try_from(len).ok().and_then(|len| text.as_flattened().get(..len)) else {
            return Ok(false);
        };
        ensure!(text.iter().all(|byte| [b'a', 0xff].contains(byte)), "a byte was never there");
        Ok(true)
    };
    against(write_letters, || {
        let (mut used, mut refused) = (0, 0);
        let mut outcome = Ok(());
        wait("one kind of letter hardly comes", || {
            match read() {
                Ok(true) => used += 1,
                Ok(false) => refused += 1,
                Err(error) => outcome = Err(error),
            }
            outcome.is_err() || used.min(refused) >= EACH
        })?;
        outcome
    })?;
    Ok(letter.unmap()?)
}

/// The control: it shows that there is something to be fooled by.
fn looked_at_twice(windows: &Windows) -> Outcome {
    let mut len = PhysConstPtr::<u64, _>::new(windows, &[frame(13)], 0, 1)?;
    len.map(Claim::Beside)?;
    against(write_letters, || {
        let mut outcome = Ok(false);
        let is_allowed = |len: u64| len <= TEXT_MOST;
        let is_fooled = || Ok(is_allowed(len.read_at(0)?) && !is_allowed(len.read_at(0)?));
        wait("nobody is fooled", || {
            outcome = is_fooled();
            outcome != Ok(false)
        })?;
        outcome.map(drop).map_err(|error: PhysError| error.into())
    })?;
    Ok(len.unmap()?)
}

fn counts(windows: &Windows) -> Outcome {
    const EACH: u64 = 20_000;
    let at = frame(14);
    store_there(at, 1, 0);
    let mut word = PhysMutPtr::<u64, _>::new(windows, &[at], 8, 1)?;
    word.map(Claim::Reserve)?;
    let agent = move || {
        let mut found = 0;
        for _ in 0..EACH {
            while let Err(other) = Hardware.compare_exchange(at.at(8), found, found + 1) {
                found = other;
            }
        }
    };
    errand::beside(agent, || -> Outcome {
        let mut found = 0;
        for _ in 0..EACH {
            loop {
                let other = word.compare_exchange_at(0, found, found + 1)?;
                if other == found {
                    break;
                }
                found = other;
            }
        }
        Ok(())
    })?;
    expect("the count", word.read_at(0)?, 2 * EACH)?;
    Ok(word.unmap()?)
}

fn gone_elsewhere(windows: &Windows) -> Outcome {
    let window = windows.vmap(&[frame(15)], Permission::Read, Claim::Beside)?;
    let start = window.window().start();
    let loads = Arc::new([const { AtomicU64::new(0) }; 2]);
    let counted = Arc::clone(&loads);
    let act = move || {
        let has_faulted = KernelWindows.load(start, &mut [0; 8]).is_err();
        counted[usize::from(has_faulted)].fetch_add(1, Ordering::SeqCst);
    };
    let count = |faults: usize| loads[faults].load(Ordering::SeqCst);
    against(act, || {
        wait("the other processor reads nothing", || count(0) >= 100)?;
        expect("faults before", count(1), 0)?;
        window.unmap()?;
        // One may have been loaded, and not yet counted.
        let most = count(0) + 1;
        let outcome = wait("the other processor sees the window", || count(1) >= 100);
        ensure!(count(0) <= most, "the other processor still saw the window");
        outcome
    })
}

fn handed_over(windows: &Arc<Windows>) -> Outcome {
    const HELD: Duration = Duration::from_millis(20);
    let range = PhysRange::of_frame(frame(1));
    let steps = Arc::new([const { AtomicBool::new(false) }; 2]);
    let (theirs, told) = (Arc::clone(windows), Arc::clone(&steps));
    let agent = move || {
        let held = theirs.reservations().try_reserve(&[range], Mode::Exclusive);
        let [is_held, is_refused] = &*told;
        is_held.store(true, Ordering::Release);
        while !is_refused.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let end = windows::now() + HELD;
        while windows::now() < end {
            core::hint::spin_loop();
        }
        drop(held);
    };
    errand::beside(agent, || {
        let [is_held, is_refused] = &*steps;
        let holds = wait("the other processor reserves nothing", || is_held.load(Ordering::Acquire));
        let refused = error_of(windows.reservations().try_reserve(&[range], Mode::Exclusive));
        is_refused.store(true, Ordering::Release);
        holds.and_then(|()| expect("one without waiting", refused, Some(PhysError::Reserved(range))))?;
        let start = windows::now();
        let had = windows.reservations().reserve(&[range], Mode::Exclusive, PATIENCE)?;
        ensure!(windows::now() - start < PATIENCE / 2, "it was not woken");
        drop(had);
        Ok(())
    })
}

fn nothing_left(windows: &Windows) -> Outcome {
    windows.check_invariants();
    expect("windows", (windows.live(), windows.retained()), (0, 0))?;
    expect("reservations", windows.reservations().len(), 0)
}
