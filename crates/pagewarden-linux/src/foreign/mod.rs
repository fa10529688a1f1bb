//! Memory that another process also has, as the other world of [`pagewarden::phys`].
//!
//! Its frames are pages of files that both have open: a memfd, or a file in `/dev/shm`. A window is a shared mapping of
//! such pages, in a space of addresses that is reserved for nothing else.
//!
//! `regions` says which frame is which page of which file, `space` owns the addresses and makes the host calls, `faults`
//! takes signals, `lost` replaces pages under those who access windows by themselves, `events` lets threads wait.
//!
//! # Soundness
//! Files change under whoever maps them, and pages of them may go away. What makes this safe:
//!
//! * **Addresses are nobody's.** The window space is new when it is reserved, and stays mapped, without rights where no
//!   window is, until it goes. So no object of the program ever lies in it.
//! * **There is no reference.** Nothing here makes one, or a slice, into the space. Bytes go in and out by
//!   [`pagewarden_copy`], which is assembly: the compiler knows nothing of these accesses that it could rely on, and each
//!   byte is loaded once.
//! * **No access leaves the space.** The methods of [`WindowAccess`] are safe functions: each compares the addresses that
//!   it is given with the space, once, and refuses what is not all inside. The other end is an ordinary slice of ours.
//! * **No host call leaves it either**, nor does one map more than it is asked to: files in huge pages are refused, since
//!   the host rounds what it maps of them up to their pages.
//!
//! ThreadSanitizer has nothing to say of windows: it watches code that the compiler has made, not assembly, and no
//! such code touches a window. If it is silent about a test, the code around the accesses has no race; the accesses have
//! been left to the argument above.
//!
//! # What the other process can do
//! It can write what it likes, at any time. It can punch holes into the file, which are zeroes. It can make it shorter:
//! where there are no pages any more, the host sends SIGBUS, and the access ends with [`CopyFault`]. It can seal it: a
//! window to write then cannot be mapped (`EPERM`). It can make an access take long, if the file is on a file system that
//! it provides itself, or if it has pages of a memfd swapped out; a file of that kind is nothing to wait for with a lock
//! held. It can not take back what was copied.
//!
//! It cannot be kept from its memory: [`set_other_access`](VmapProvider::set_other_access) is
//! [`Unsupported`](PhysError::Unsupported). Seals would be the means, but they cannot be removed again, they fail
//! while a mapping to write exists, and they bind both processes.
//!
//! # Faults
//! The process gets handlers of SIGSEGV and SIGBUS when the first [`ForeignMemory`] is made. A fault that is not one of
//! our copies' goes on to the handler that was there before. Who installs another one later must do the same, and no
//! thread may access windows with these signals blocked: the host ends a process that faults then.
//!
//! # Locks
//! None. Which windows are in use is the manager's business.

mod events;
#[cfg(test)]
mod injected;
pub(crate) mod lost;
mod regions;
mod space;

pub use events::FutexEvents;
pub use regions::ForeignRegion;

use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{CopyFault, Permission, PhysError, VmapProvider, WindowAccess, WordWidth};
use pagewarden::{Errno, PageCount, PageRange, VirtAddr};

use regions::Regions;
use space::WindowSpace;

/// What foreign memory is made of.
#[derive(Debug)]
pub struct ForeignOptions {
    /// Which frames are which pages of which files.
    pub regions: Vec<ForeignRegion>,
    /// Frames among them that are our own allocator's.
    pub owned: Vec<FrameRange>,
    /// Bytes of address space for windows, rounded up to pages: at most [`ForeignMemory::MOST_WINDOW_BYTES`]. They are
    /// reserved and cost no memory, but a limit of the process's address space counts them.
    pub window_bytes: u64,
}

impl Default for ForeignOptions {
    /// No memory, and 64 GiB for windows.
    fn default() -> Self {
        Self { regions: Vec::new(), owned: Vec::new(), window_bytes: 64 << 30 }
    }
}

/// Why there is no foreign memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForeignError {
    /// Two regions have the same frame.
    #[error("{0} is in two regions")]
    Overlap(FrameNumber),
    /// A region starts within a page of its file, or ends where no file can.
    #[error("the region of {0} is no range of pages of a file")]
    Offset(FrameNumber),
    /// A device, a pipe or the like: it may map in its own ways.
    #[error("the region of {0} is not in a regular file")]
    NotAFile(FrameNumber),
    /// The file is in huge pages, which windows cannot be cut from.
    #[error("the region of {0} is in a file in huge pages")]
    HugePages(FrameNumber),
    /// No bytes for windows, or too many.
    #[error("there can be no window space of this size")]
    Size,
    /// The host refuses.
    #[error("the host refuses: {0}")]
    Host(Errno),
}

/// Memory of another world that is in files. See the [module](self).
#[derive(Debug)]
pub struct ForeignMemory {
    regions: Regions,
    space: WindowSpace,
}

impl ForeignMemory {
    /// The largest window space.
    pub const MOST_WINDOW_BYTES: u64 = 1 << 40;

    /// Reserves a window space, with no window in it, and takes over SIGSEGV and SIGBUS if that has not been done.
    ///
    /// # Errors
    /// [`ForeignError`]: what was asked for makes no sense, or the host has no room.
    pub fn new(options: ForeignOptions) -> Result<Self, ForeignError> {
        let regions = Regions::new(options.regions, &options.owned)?;
        let pages = PageCount::from_bytes_up(options.window_bytes);
        if pages == PageCount::ZERO || pages.bytes() > Self::MOST_WINDOW_BYTES {
            return Err(ForeignError::Size);
        }
        crate::faults::install().map_err(ForeignError::Host)?;
        let space = WindowSpace::new(pages).map_err(ForeignError::Host)?;
        Ok(Self { regions, space })
    }

    /// The address of a byte in the window space, for code that has its own ways to access such memory.
    ///
    /// No reference may ever be made of it, and no access but a volatile or atomic one: others write to these bytes.
    /// Whoever uses it answers for that, and for the window being mapped, with the right permission, as long as it is
    /// used. Where the other process takes pages away meanwhile, accesses that are not ours find private pages of zeroes
    /// in their place ([`lost_pages`](Self::lost_pages)).
    ///
    /// `None` if not all of the `len` bytes from `at` on lie in the space.
    pub fn window_pointer(&self, at: VirtAddr, len: usize) -> Option<*mut u8> {
        self.space.pointer(at, len)
    }

    /// How many pages were taken away under an access by [pointer](Self::window_pointer), and replaced.
    ///
    /// Such a page is zeroes, and what is written to it is seen by nobody, until its window is unmapped. Our own accesses
    /// see it as well if they come after. So whoever accesses windows by pointers looks at this number before relying on
    /// what was read.
    pub fn lost_pages(&self) -> u64 {
        self.space.lost_pages()
    }

    /// Shows `frames` at `window`, run by run; says how many pages were shown before a failure.
    fn show(&self, window: PageRange, frames: FrameRange, permission: Permission) -> Result<(), (u64, PhysError)> {
        let mut done = 0;
        while let Some(first) = FrameNumber::new(frames.first().get() + done).filter(|next| frames.contains(*next)) {
            let failed = |error| (done, error);
            let run = self.regions.run(first, frames.end()).ok_or(PhysError::Owned(first)).map_err(failed)?;
            if permission == Permission::ReadWrite && run.permission == Permission::Read {
                return Err(failed(PhysError::Platform(Errno::Acces)));
            }
            let part =
                PageRange::from_pages(window.first_page() + done, run.pages).ok_or(failed(PhysError::Invalid))?;
            self.space.show(part, run, permission).map_err(|errno| failed(PhysError::Platform(errno)))?;
            done += run.pages.get();
        }
        Ok(())
    }
}

impl WindowAccess for ForeignMemory {
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault> {
        let from = self.space.pointer(from, to.len()).ok_or(CopyFault { copied: 0 })?;
        // SAFETY: `to` is ours. `from` lies in the window space, which is nobody's; the handler of faults is installed
        // since before the space was made.
        let copied = unsafe { pagewarden_copy::copy(to.as_mut_ptr(), from, to.len()) };
        copied.map_err(|fault| CopyFault { copied: fault.copied })
    }

    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
        let to = self.space.pointer(to, from.len()).ok_or(CopyFault { copied: 0 })?;
        // SAFETY: as for loads, the other way round; nobody has a reference into the window space.
        let copied = unsafe { pagewarden_copy::copy(to, from.as_ptr(), from.len()) };
        copied.map_err(|fault| CopyFault { copied: fault.copied })
    }

    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault> {
        match width {
            WordWidth::Four => {
                #[expect(clippy::cast_possible_truncation, reason = "a word of four bytes has the low half")]
                let (current, new) = (current as u32, new as u32);
                let at: *mut u32 = self.space.word(at)?;
                // SAFETY: an aligned word of the window space, which is nobody's; the handler is installed.
                let found = unsafe { pagewarden_copy::compare_exchange(at, current, new) };
                found.map_or(Err(CopyFault { copied: 0 }), |word| Ok(word.into()))
            }
            WordWidth::Eight => {
                let at: *mut u64 = self.space.word(at)?;
                // SAFETY: as above.
                let found = unsafe { pagewarden_copy::compare_exchange(at, current, new) };
                found.map_err(|_| CopyFault { copied: 0 })
            }
        }
    }
}

impl VmapProvider for ForeignMemory {
    type Events = FutexEvents;

    fn window_space(&self) -> PageRange {
        self.space.pages()
    }

    fn is_foreign(&self, frame: FrameNumber) -> bool {
        self.regions.run(frame, frame.get() + 1).is_some()
    }

    /// A run of frames that lie one behind the other in a file is one mapping of the host, of which a process may have
    /// some ten thousands (`vm.max_map_count`). What was there before is replaced.
    ///
    /// If a later run cannot be shown, those before it are taken back. If that fails too, its reason is the answer and
    /// they are still shown, until [`unmap`](VmapProvider::unmap) is called, which the manager does.
    fn map(&self, window: PageRange, frames: FrameRange, permission: Permission) -> Result<(), PhysError> {
        if window.pages() != frames.frames() || !self.space.pages().contains_range(window) {
            return Err(PhysError::Invalid);
        }
        let Err((done, error)) = self.show(window, frames, permission) else { return Ok(()) };
        if let Some(shown) = PageRange::from_pages(window.first_page(), PageCount::new(done)) {
            self.space.vacate(shown).map_err(PhysError::Platform)?;
        }
        Err(error)
    }

    fn unmap(&self, window: PageRange) -> Result<(), PhysError> {
        if !self.space.pages().contains_range(window) {
            return Err(PhysError::Invalid);
        }
        self.space.vacate(window).map_err(PhysError::Platform)
    }
}
