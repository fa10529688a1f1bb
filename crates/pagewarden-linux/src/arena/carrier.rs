//! Pages that change place while the host's mappings stay as they are: `UFFDIO_MOVE` of userfaultfd(2), Linux 6.8.
//!
//! The host's mremap takes a mapping apart and makes another. Between two places that are mapped alike already, a move
//! need only take the pages along. The host does so where the target is registered with a descriptor. Registered
//! are the places that pages were moved between last, for write protection that nobody asks for: no fault is reported.
//! A registered place does not unite with what is around it, so there are few.
//!
//! The descriptor is opened by the first move that it is of use to, and lies far above those that a program counts on.
//! A guest that registers such memory with a userfaultfd of its own is told `EBUSY`.
//!
//! Whatever goes wrong, the caller moves pages as ever: without the descriptor (no such call, no permission, somebody
//! has closed it) nothing is lost but time.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use pagewarden::{Errno, PAGE_SIZE, PageRange};

use super::mark::ProcessMark;
use super::reservation::{Reservation, syscall};

/// Most places that are registered.
const PLACES_MAX: usize = 16;
/// So many moves may fail in a row before no more are tried: who shares his pages with a child has them copied, not moved.
const FAILURES_MAX: u32 = 16;
/// The descriptor is this or higher.
const LOWEST_FD: u64 = 900;

/// `UFFD_USER_MODE_ONLY`, for which nobody needs a privilege.
const USER_MODE_ONLY: u64 = 1;
/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_FEATURE_MOVE`.
const FEATURE_MOVE: u64 = 1 << 16;
/// `UFFDIO_REGISTER_MODE_WP`.
const MODE_WRITE_PROTECT: u64 = 2;
/// `UFFDIO_MOVE_MODE_DONTWAKE` and `UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES`.
const MOVE_MODE: u64 = 1 | 2;

const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;
const UFFDIO_MOVE: u64 = 0xc028_aa05;

/// How an arena has the host move pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PageMoves {
    /// By whatever is fastest, a userfaultfd(2) among it, which the first move that profits opens: number 900 or above,
    /// closed at exec, and no fault is ever reported to it.
    #[default]
    Fastest,
    /// By mremap(2) alone, for a process that is ended if it makes other calls, or has a userfaultfd of its own on the
    /// arena.
    ByMremap,
}

/// Takes pages from one place to another.
#[derive(Debug)]
pub(super) struct Carrier {
    descriptor: Descriptor,
    /// What may be registered, oldest first; no two overlap. All that is registered lies in one of these.
    places: Vec<PageRange>,
    failures: u32,
}

#[derive(Debug)]
enum Descriptor {
    /// Nobody has asked.
    Untried,
    Open(Opened),
    /// Not to be had, or of no use.
    Off,
}

#[derive(Debug)]
struct Opened {
    fd: OwnedFd,
    /// Seen by the process whose memory it is for.
    mark: ProcessMark,
}

impl Carrier {
    /// A carrier that has registered nothing.
    pub(super) const fn new(moves: PageMoves) -> Self {
        let descriptor = match moves {
            PageMoves::Fastest => Descriptor::Untried,
            PageMoves::ByMremap => Descriptor::Off,
        };
        Self { descriptor, places: Vec::new(), failures: 0 }
    }

    /// The carrier of a child.
    pub(super) const fn fork(&self) -> Self {
        Self::new(if matches!(self.descriptor, Descriptor::Off) { PageMoves::ByMremap } else { PageMoves::Fastest })
    }

    /// Whether it is worth trying.
    pub(super) fn is_ready(&mut self) -> bool {
        self.leave_parent();
        if let Descriptor::Untried = self.descriptor {
            self.descriptor = open().map_or(Descriptor::Off, Descriptor::Open);
        }
        matches!(self.descriptor, Descriptor::Open(_))
    }

    fn fd(&self) -> Option<&OwnedFd> {
        match &self.descriptor {
            Descriptor::Open(opened) => Some(&opened.fd),
            Descriptor::Untried | Descriptor::Off => None,
        }
    }

    /// Gives up a descriptor that is for another process. What is registered there is not in a child.
    fn leave_parent(&mut self) {
        if matches!(&self.descriptor, Descriptor::Open(opened) if !opened.mark.is_ours()) {
            *self = self.fork();
        }
    }

    /// Moves the pages of `from` to the start of `to`, where nothing is in them; both are plain memory that may be
    /// written. Gives the bytes that have come there, from the first on. What was in the way of the others may lie
    /// in any of them.
    pub(super) fn carry(&mut self, memory: &Reservation, from: PageRange, to: PageRange) -> u64 {
        let try_to = |this: &Self| this.fd().map_or(0, |fd| move_pages(fd, memory, from, to));
        let mut carried = try_to(self);
        // The host asks for one mapping at either place: there must be no border of what is registered in the old one.
        for place in [to, from] {
            if carried == 0 && self.register(memory, place).is_ok() {
                carried = try_to(self);
            }
        }
        if carried == from.bytes() {
            self.failures = 0;
        } else {
            self.fail();
        }
        carried
    }

    /// Registers `place`, and forgets the oldest if there are too many.
    fn register(&mut self, memory: &Reservation, place: PageRange) -> Result<(), Errno> {
        memory.check(place)?;
        let fd = self.fd().ok_or(Errno::NoSys)?;
        control(fd, UFFDIO_REGISTER, &mut [place.start().as_u64(), place.bytes(), MODE_WRITE_PROTECT, 0])?;
        self.cut(place);
        self.places.push(place);
        while self.places.len() > PLACES_MAX {
            let oldest = self.places.remove(0);
            self.forget(oldest);
        }
        Ok(())
    }

    /// Forgets what is registered of `range`, which is private anonymous memory. The host's mremap needs that: where
    /// several of its mappings move at once it stops at a registered one, and has moved those before it.
    pub(super) fn release(&mut self, range: PageRange) {
        if self.places.iter().any(|place| place.intersects(range)) {
            self.leave_parent();
            self.cut(range).into_iter().for_each(|part| self.forget(part));
        }
    }

    /// Takes `range` out of the places; what was there of it.
    fn cut(&mut self, range: PageRange) -> Vec<PageRange> {
        let places = std::mem::take(&mut self.places);
        let kept = |place: &PageRange| [place.below(range.start()), place.from(range.end())];
        self.places = places.iter().flat_map(kept).flatten().collect();
        places.into_iter().filter_map(|place| place.intersection(range)).collect()
    }

    /// Makes a place, which is in the list no more, a part of what is around it again.
    fn forget(&mut self, place: PageRange) {
        let Some(fd) = self.fd() else { return };
        if control(fd, UFFDIO_UNREGISTER, &mut [place.start().as_u64(), place.bytes()]).is_err() {
            // Something else is there by now, or there is no memory. With its descriptor the host forgets all places.
            self.places.clear();
            self.descriptor = Descriptor::Untried;
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.places.clear();
            self.descriptor = Descriptor::Off;
        }
    }
}

/// Opens a descriptor that can move pages.
fn open() -> Option<Opened> {
    let mark = ProcessMark::new()?;
    let flags = u64::from(libc::O_CLOEXEC.unsigned_abs()) | USER_MODE_ONLY;
    let low = owned(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0])?;
    control(&low, UFFDIO_API, &mut [API, FEATURE_MOVE, 0]).ok()?;
    let number = u64::from(low.as_raw_fd().unsigned_abs());
    let fd = owned(libc::SYS_fcntl, [number, u64::from(libc::F_DUPFD_CLOEXEC.unsigned_abs()), LOWEST_FD, 0, 0, 0])?;
    Some(Opened { fd, mark })
}

/// The descriptor that a call makes.
fn owned(number: libc::c_long, args: [u64; 6]) -> Option<OwnedFd> {
    // SAFETY: the call makes a descriptor, and changes no memory.
    let fd = unsafe { syscall(number, args) }.ok()?;
    let fd = i32::try_from(fd).ok()?;
    // SAFETY: the descriptor is new, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the bytes that were moved.
fn move_pages(fd: &OwnedFd, memory: &Reservation, from: PageRange, to: PageRange) -> u64 {
    if memory.check(from).is_err() || memory.check(to).is_err() || to.bytes() < from.bytes() {
        return 0;
    }
    let mut words = [to.start().as_u64(), from.start().as_u64(), from.bytes(), MOVE_MODE, 0];
    if control(fd, UFFDIO_MOVE, &mut words).is_ok() {
        return from.bytes();
    }
    // An error number, negated, or what was moved before it came to a page that it cannot move.
    let moved = u64::try_from(words[4].cast_signed()).unwrap_or(0);
    moved.min(from.bytes()) / PAGE_SIZE * PAGE_SIZE
}

/// ioctl(2) on a userfaultfd. Pages that `words` speak of lie in the reservation.
fn control(fd: &OwnedFd, request: u64, words: &mut [u64]) -> Result<(), Errno> {
    let number = u64::from(fd.as_raw_fd().unsigned_abs());
    let args = [number, request, words.as_mut_ptr().expose_provenance() as u64, 0, 0, 0];
    // SAFETY: the words are as many as the request names, and outlive the call. What it moves or marks was checked to
    // lie in the reservation.
    unsafe { syscall(libc::SYS_ioctl, args) }.map(drop)
}
