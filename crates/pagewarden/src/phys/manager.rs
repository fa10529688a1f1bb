//! The manager: windows on the pages of another world, for as long as somebody needs them.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

use crate::addr::{PageCount, PageRange};
use crate::frame::{FrameNumber, FrameRange};
use crate::phys::pages;
use crate::phys::protection::Protection;
use crate::phys::reservation::{Held, RangeSet};
use crate::phys::windows::{Retained, Windows};
use crate::phys::{
    Mapping, Mode, OtherAccess, Permission, PhysError, PhysRange, Reservation, Reservations, VmapProvider,
};
use crate::sync::Mutex;

/// What a mapping has reserved for as long as it lives.
#[derive(Debug)]
pub enum Claim<'r, P: VmapProvider> {
    /// Nothing: the window is one beside whatever others there are, and no reservation is in its way.
    Beside,
    /// The bytes that it is for, all of its pages or the values of a pointer: shared for a window to read, exclusively for
    /// one to write.
    Reserve,
    /// This, which the caller has, of the same manager. It may be for less than the pages: what lies in them for others
    /// is none of this mapping's business.
    Held(Reservation<'r, P::Events>),
}

/// Shows pages of another world in windows, and keeps the book of who has reserved which bytes of it.
///
/// See the [module](crate::phys) for what it owns. All methods may be called by several threads at once.
pub struct VmapManager<P: VmapProvider> {
    provider: P,
    reservations: Reservations<P::Events>,
    windows: Mutex<Windows>,
    protected: Mutex<RangeSet>,
}

/// A way to keep a manager: `&VmapManager` or `Arc<VmapManager>`.
pub trait ManagerRef: Deref<Target = VmapManager<Self::Provider>> + Clone {
    /// The platform of the manager.
    type Provider: VmapProvider;
}

impl<P: VmapProvider> ManagerRef for &VmapManager<P> {
    type Provider = P;
}

impl<P: VmapProvider> ManagerRef for Arc<VmapManager<P>> {
    type Provider = P;
}

impl<P: VmapProvider> fmt::Debug for VmapManager<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows = self.windows.lock();
        write!(f, "VmapManager({} in use, {} retained)", windows.live(), windows.retained())
    }
}

impl<P: VmapProvider> VmapManager<P> {
    /// A manager of the windows of `provider`. Threads that wait for a reservation wait on `events`.
    pub fn new(provider: P, events: P::Events) -> Self {
        let windows = Windows::new(provider.window_space());
        Self {
            provider,
            reservations: Reservations::new(events),
            windows: Mutex::new(windows),
            protected: Mutex::new(RangeSet::new()),
        }
    }

    /// The platform.
    pub const fn provider(&self) -> &P {
        &self.provider
    }

    /// Who has reserved what.
    pub const fn reservations(&self) -> &Reservations<P::Events> {
        &self.reservations
    }

    /// Shows `frames`, in this order and wherever they lie, at consecutive pages. Whoever keeps the manager counted calls
    /// [`Mapping::new`].
    ///
    /// # Errors
    /// As [`Mapping::new`].
    pub fn vmap(
        &self,
        frames: &[FrameNumber],
        permission: Permission,
        claim: Claim<'_, P>,
    ) -> Result<Mapping<&Self>, PhysError> {
        Mapping::new(self, frames, permission, claim)
    }

    /// That all of `frames` are memory of the other world: none is our own allocator's.
    ///
    /// # Errors
    /// [`PhysError::Owned`] with the first that is not.
    pub fn validate_unowned(&self, frames: &[FrameNumber]) -> Result<(), PhysError> {
        self.validate_foreign(frames.iter().copied())
    }

    pub(super) fn validate_foreign(&self, mut frames: impl Iterator<Item = FrameNumber>) -> Result<(), PhysError> {
        match frames.find(|frame| !self.provider.is_foreign(*frame)) {
            Some(frame) => Err(PhysError::Owned(frame)),
            None => Ok(()),
        }
    }

    /// Limits what the other world may do with `frames`, until the protection ends.
    ///
    /// # Errors
    /// As [`Protection::new`].
    pub fn protect(&self, frames: FrameRange, access: OtherAccess) -> Result<Protection<&Self>, PhysError> {
        Protection::new(self, frames, access)
    }

    /// How many mappings and protections there are that somebody has.
    pub fn live(&self) -> usize {
        self.windows.lock().live()
    }

    /// How many mappings and protections the platform would not take back. Their addresses, their reservations and the
    /// limits for the other world stay as they were.
    pub fn retained(&self) -> usize {
        self.windows.lock().retained()
    }

    /// Tries once more to take back whatever is retained; what can be is.
    ///
    /// # Errors
    /// Why the first that could not be taken back was not.
    pub fn retry_retained(&self) -> Result<(), PhysError> {
        let mut outcome = Ok(());
        for _ in 0..self.retained() {
            let Some(what) = self.windows.lock().resume() else { break };
            let done = match what {
                Retained::Window(window, held) => self.close(window, held),
                Retained::Protection(frames) => self.unprotect(frames),
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    /// # Panics
    /// If what the manager counts does not agree with what it has.
    pub fn check_invariants(&self) {
        self.windows.lock().check_invariants();
        self.reservations.check_invariants();
        self.protected.lock().check_invariants();
    }

    /// Reserves what a mapping is to own.
    pub(super) fn claim(
        &self,
        frames: &[FrameNumber],
        permission: Permission,
        claim: Claim<'_, P>,
    ) -> Result<Option<Held>, PhysError> {
        let mode = permission.mode();
        match claim {
            Claim::Beside => Ok(None),
            Claim::Reserve => {
                let ranges = pages::ranges(frames, 0, PageCount::new(frames.len() as u64).bytes())?;
                Ok(self.reservations.try_reserve(&ranges, mode)?.into_held())
            }
            Claim::Held(reservation) => {
                let is_ours = core::ptr::eq(reservation.registry(), &self.reservations);
                if !is_ours || (mode == Mode::Exclusive && reservation.mode() == Mode::Shared) {
                    return Err(PhysError::Invalid);
                }
                Ok(reservation.into_held())
            }
        }
    }

    /// Shows `frames` in a window: all, or none. If not even the part that was shown can be taken back, the manager
    /// retains it with `held`.
    pub(super) fn open(
        &self,
        frames: &[FrameNumber],
        permission: Permission,
        held: Option<Held>,
    ) -> Result<(PageRange, Option<Held>), PhysError> {
        let taken = self.windows.lock().take(PageCount::new(frames.len() as u64));
        let window = match taken {
            Ok(window) => window,
            Err(error) => {
                self.release(held);
                return Err(error);
            }
        };
        match self.show(window, frames, permission) {
            Ok(()) => Ok((window, held)),
            Err(error) => {
                // That the part cannot be taken back is told by what is retained; the caller hears what came first.
                let _ = self.close(window, held);
                Err(error)
            }
        }
    }

    /// Shows each run of `frames` at its place in `window`. What was shown before a failure stays.
    fn show(&self, window: PageRange, frames: &[FrameNumber], permission: Permission) -> Result<(), PhysError> {
        for (place, run) in pages::runs(frames) {
            let part = PageRange::from_pages(window.first_page() + place, run.frames()).ok_or(PhysError::Overflow)?;
            self.provider.map(part, run, permission)?;
        }
        Ok(())
    }

    /// Takes away what a window that lives shows, then lets go of it and of what was reserved; retains both if the
    /// platform fails.
    pub(super) fn close(&self, window: PageRange, held: Option<Held>) -> Result<(), PhysError> {
        if let Err(error) = self.provider.unmap(window) {
            self.windows.lock().retain(Retained::Window(window, held));
            return Err(error);
        }
        self.release(held);
        let mut windows = self.windows.lock();
        windows.give_back(window).inspect_err(|_| windows.retain(Retained::Window(window, None)))
    }

    fn release(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.reservations.release(held);
        }
    }

    /// Protects frames that nobody else has protected.
    pub(super) fn begin_protection(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        self.windows.lock().begin()?;
        let begun = self.protect_new(frames, access);
        if begun.is_err() {
            self.windows.lock().end();
        }
        begun
    }

    fn protect_new(&self, frames: FrameRange, access: OtherAccess) -> Result<(), PhysError> {
        let range = PhysRange::of_frames(frames);
        self.protected.lock().insert(range)?;
        self.provider.set_other_access(frames, access).inspect_err(|_| {
            self.protected.lock().remove(range);
        })
    }

    /// Ends a protection that lives, or retains it.
    pub(super) fn unprotect(&self, frames: FrameRange) -> Result<(), PhysError> {
        if let Err(error) = self.provider.set_other_access(frames, OtherAccess::Full) {
            self.windows.lock().retain(Retained::Protection(frames));
            return Err(error);
        }
        self.protected.lock().remove(PhysRange::of_frames(frames));
        self.windows.lock().end();
        Ok(())
    }
}
