//! Host addresses that a view may use, and nobody else.
//!
//! Linux before 6.13 may unmap the target of a mapping before it fails. Such a hole is closed when the view is dropped, which
//! follows at once; until then nothing gets in, since reservations lie where the host places nothing by itself, unless
//! all of those places were taken.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use pagewarden::{Errno, PAGE_SIZE};

use super::host;

/// Where reservations go: far below what the host places by itself, and above all programs and other spaces of ours.
const FIRST_PLACE: usize = 0x3000_0000_0000;
const PLACES_END: usize = 0x6000_0000_0000;
const ALIGN: usize = 2 << 20;
/// So many places are tried.
const TRIES: usize = 4096;

static NEXT_PLACE: AtomicUsize = AtomicUsize::new(FIRST_PLACE);

/// A range of the process's addresses without any rights: for a view, and a guard behind it that stays as it is.
///
/// It is the range of one view after another, and unmapped when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    base: usize,
    bytes: usize,
    guard: usize,
}

impl Reservation {
    /// Reserves `bytes` bytes and a guard of `guard` bytes behind them, both multiples of the size of a page. It costs
    /// addresses and no memory.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for other sizes, or no bytes at all; the host's reason.
    pub fn new(bytes: usize, guard: usize) -> io::Result<Self> {
        let is_whole = |bytes: usize| (bytes as u64).is_multiple_of(PAGE_SIZE);
        let Some(all) = bytes.checked_add(guard).filter(|_| bytes > 0 && is_whole(bytes) && is_whole(guard)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let base = reserve(all).map_err(|errno| io::Error::from_raw_os_error(errno.raw().into()))?;
        Ok(Self { base, bytes, guard })
    }

    /// Where it begins.
    pub fn base(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base)
    }

    /// How many bytes there are without the guard.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes the guard has.
    pub const fn guard(&self) -> usize {
        self.guard
    }

    /// [`Self::base`] as a number.
    pub(super) const fn start(&self) -> usize {
        self.base
    }
}

/// Reserves `bytes` bytes in a place of its own.
fn reserve(bytes: usize) -> Result<usize, Errno> {
    // Tables of the host span no two views.
    let step = bytes.checked_next_multiple_of(ALIGN).filter(|step| *step < PLACES_END - FIRST_PLACE);
    let Some(step) = step else { return host::reserve(0, bytes) };
    for _ in 0..TRIES {
        let place = NEXT_PLACE.fetch_add(step, Ordering::Relaxed);
        if place > PLACES_END - step {
            // Those that were there first may have gone.
            NEXT_PLACE.store(FIRST_PLACE, Ordering::Relaxed);
            continue;
        }
        match host::reserve(place, bytes) {
            Ok(start) if start == place => return Ok(start),
            // SAFETY: it was mapped just now, by a kernel that takes the address for a hint.
            Ok(start) => unsafe { host::unmap(start, bytes) },
            Err(Errno::Exist) => {}
            Err(errno) => return Err(errno),
        }
    }
    host::reserve(0, bytes)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`; no view uses it any more, and nobody makes references into it.
        unsafe { host::unmap(self.base, self.bytes + self.guard) };
    }
}
