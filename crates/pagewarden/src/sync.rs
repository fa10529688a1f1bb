//! Atomics and locks of the core: the processor's atomics and locks that spin, or those of a checker of
//! interleavings (`--cfg loom` for every order of a small case, `--cfg shuttle` for many orders of a large one).
//!
//! The locks guard short work on a few words; what may take long (a read from a file, a copy of many pages) happens
//! outside of them. With the feature `std` a thread that waits gives its processor away: on a host the holder may not
//! be running.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The processor's, under a checker too: for memory that has far too many words to be checked one by one.
pub(crate) use core::sync::atomic::AtomicU64 as PlainAtomicU64;
/// Likewise; what makes the value must not switch threads.
pub(crate) use spin::once::Once;

pub(crate) use locks::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(not(any(loom, shuttle)))]
mod locks {
    #[cfg(not(feature = "std"))]
    type Relax = spin::Spin;
    #[cfg(feature = "std")]
    type Relax = spin::Yield;

    pub(crate) type Mutex<T> = spin::mutex::Mutex<T, Relax>;
    pub(crate) type MutexGuard<'a, T> = spin::mutex::MutexGuard<'a, T, Relax>;
    pub(crate) type RwLock<T> = spin::rwlock::RwLock<T, Relax>;
    pub(crate) type RwLockReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, Relax>;
    pub(crate) type RwLockWriteGuard<'a, T> = spin::rwlock::RwLockWriteGuard<'a, T, Relax>;
}

/// The checkers' locks with the interface of those that spin: nobody goes on after a panic, so none is poisoned.
#[cfg(any(loom, shuttle))]
mod locks {
    #[cfg(loom)]
    use loom::sync as checked;
    #[cfg(all(shuttle, not(loom)))]
    use shuttle::sync as checked;

    pub(crate) use checked::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(checked::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(checked::Mutex::new(value))
        }

        #[track_caller]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread has panicked")
        }

        #[track_caller]
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(checked::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(checked::RwLock::new(value))
        }

        #[track_caller]
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("no thread has panicked")
        }

        #[track_caller]
        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("no thread has panicked")
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("no thread has panicked")
        }
    }
}
