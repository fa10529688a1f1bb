//! The seam: what windows ask of a platform.

use core::time::Duration;

use crate::addr::{PageRange, VirtAddr};
use crate::frame::{FrameNumber, FrameRange};
use crate::phys::{CopyFault, Mode, PhysError};

/// What a window allows. There is no way to ask for more: nobody executes foreign memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

impl Permission {
    /// How whoever uses a window so reserves what it shows.
    pub(super) const fn mode(self) -> Mode {
        match self {
            Self::Read => Mode::Shared,
            Self::ReadWrite => Mode::Exclusive,
        }
    }
}

/// What is left to the other world of memory that we protect against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherAccess {
    /// No access.
    None,
    /// Loads.
    Read,
    /// Whatever it has by itself.
    Full,
}

/// The width of a word that is exchanged in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WordWidth {
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
}

impl WordWidth {
    /// How many bytes that are.
    #[inline]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Four => size_of::<u32>(),
            Self::Eight => size_of::<u64>(),
        }
    }
}

/// Copies between windows and memory that is ours, while somebody else may change what the windows show.
///
/// Both ends of a copy never are references to foreign memory: windows are addresses. An implementation makes each
/// access exactly as it is asked to, once: with assembly, or with volatile or atomic accesses, never with code that a
/// compiler may split, join or repeat. A copy of 2, 4 or 8 bytes from or to an address that is a multiple of its length is
/// one access, and never torn. A fault ends an access with an error. Accesses happen in program order, as x86-64 keeps
/// it: loads acquire, stores release.
///
/// An address outside of the platform's window space is refused as a fault is, with nothing copied: callers cannot use
/// these methods, which are safe, to reach memory that belongs to somebody.
pub trait WindowAccess: Send + Sync {
    /// Copies out of a window.
    ///
    /// # Errors
    /// Not all of it could be loaded; what came before is in `to`.
    fn load(&self, from: VirtAddr, to: &mut [u8]) -> Result<(), CopyFault>;

    /// Copies into a window.
    ///
    /// # Errors
    /// Not all of it could be stored; what came before is.
    fn store(&self, to: VirtAddr, from: &[u8]) -> Result<(), CopyFault>;

    /// Replaces the word at `at`, a multiple of its width, by `new` if it is `current`, in one step. What was there.
    ///
    /// # Errors
    /// The word could not be reached.
    fn compare_exchange(&self, at: VirtAddr, width: WordWidth, current: u64, new: u64) -> Result<u64, CopyFault>;
}

/// What a [`VmapManager`](crate::phys::VmapManager) asks of a platform: whole runs of pages, decided elsewhere.
pub trait VmapProvider: WindowAccess {
    /// How threads wait for a reservation.
    type Events: EventCount;

    /// The addresses that windows may have: always the same, and nobody else's.
    fn window_space(&self) -> PageRange;

    /// Whether a frame is memory of the other world, and not our own allocator's.
    fn is_foreign(&self, frame: FrameNumber) -> bool;

    /// Shows `frames`, which are foreign, at the pages of `window`, as many, where nothing is: all or none.
    ///
    /// # Errors
    /// [`PhysError::AlreadyMapped`], [`PhysError::OutOfTableFrames`], [`PhysError::Platform`]; nothing has changed.
    fn map(&self, window: PageRange, frames: FrameRange, permission: Permission) -> Result<(), PhysError>;

    /// Takes away what is in `window`, if there is something. When it returns, no access under way sees it any more.
    ///
    /// # Errors
    /// [`PhysError::Platform`]; any part of it may still be there, and the call may be repeated.
    fn unmap(&self, window: PageRange) -> Result<(), PhysError>;

    /// Sets what the other world may do with `frames`: all or none.
    ///
    /// # Errors
    /// [`PhysError::Unsupported`] where the platform has no say in that, [`PhysError::Platform`].
    fn set_other_access(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        let _ = (frames, access);
        Err(PhysError::Unsupported)
    }
}

/// An event count: how a thread waits until something has happened, without missing it.
///
/// Who waits reads [`count`](Self::count), looks whether it has to wait at all, and then waits for the count to be
/// another. (Reed and Kanodia, 1979; a futex is one.)
pub trait EventCount: Send + Sync {
    /// The time that has passed since some moment; it never goes back.
    fn now(&self) -> Duration;

    /// How often [`notify`](Self::notify) was called, modulo 2^32.
    fn count(&self) -> u32;

    /// Returns when the count is not `seen`, or when it is `deadline`. It may return at any other time.
    fn wait(&self, seen: u32, deadline: Duration);

    /// Counts one more, and wakes all who wait.
    fn notify(&self);
}
