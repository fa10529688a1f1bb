//! fork: the host copies the process, the arena with it, and the manager of the child is the one that the core forks.
//!
//! The host leaves pages marked `MADV_DONTFORK` out, so that the child has holes in its arena. They are closed first
//! of all: nothing of the process is asked for memory before, except by handlers that the C library runs inside of
//! fork (pthread_atfork(3)). Arenas that say nothing of their address lie where the host puts nothing by itself. Should
//! something have got there all the same, the child's arena answers `ENOMEM` to everything.

use pagewarden::{Account, Errno, Limits, PageRange, RegionFlags, Resource, ResourceLedger};

use super::provider::ArenaProvider;
use super::{Arena, Inner};

/// In which process a fork returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// In the one that called; this is the child.
    Parent(libc::pid_t),
    /// In the child.
    Child,
}

impl Arena {
    /// Forks this process. In the child, the arena is the child's copy, with limits of its own.
    ///
    /// # Errors
    /// `ENOMEM` if the child's memory exceeds a limit, or the host's reason not to fork.
    ///
    /// # Safety
    /// As for fork(2): only the calling thread lives on in the child. Locks that other threads held at the time stay
    /// locked there, and what they were changing stays half done; if there are such, the child calls only what is
    /// async-signal-safe besides this arena. Other arenas with `MADV_DONTFORK` memory are not to be used in the child.
    pub unsafe fn fork(&self) -> Result<Fork, Errno> {
        let mut inner = self.lock();
        let account = own_account(inner.manager.account());
        let pending = inner.manager.prepare_fork(account).map_err(|refusal| refusal.errno)?;
        let holes = left_out(&inner);
        inner.manager.provider_mut().cool_all();
        // SAFETY: the caller answers for what other threads were about.
        let pid = unsafe { libc::fork() };
        if pid != 0 {
            let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
            let errno = u16::try_from(raw).map_or(Errno::Again, Errno::from_raw);
            return if pid > 0 { Ok(Fork::Parent(pid)) } else { Err(errno) };
        }
        let is_whole = inner.manager.provider().close_holes(&holes);
        let provider = inner.manager.provider_mut().hand_over();
        inner.manager = pending.finish(provider);
        inner.is_broken |= !is_whole;
        Ok(Fork::Child)
    }
}

/// An account of a ledger of its own, with the same limits.
fn own_account(account: &Account) -> Account {
    let limit = |limits: Limits, resource| limits.with(resource, account.limit(resource));
    ResourceLedger::new(Resource::ALL.into_iter().fold(Limits::UNLIMITED, limit)).root().clone()
}

/// What the host will leave out of the child.
fn left_out(inner: &Inner) -> Vec<PageRange> {
    if inner.manager.totals().dont_fork_pages == 0 {
        return Vec::new();
    }
    let entries = inner.manager.map().iter();
    entries.filter(|entry| entry.region.flags.contains(RegionFlags::DONT_FORK)).map(|entry| entry.range).collect()
}

impl ArenaProvider {
    /// Makes holes vacant; whether that was possible.
    fn close_holes(&self, holes: &[PageRange]) -> bool {
        // All of them, whatever becomes of one.
        holes.iter().filter(|hole| self.memory.close_hole(**hole).is_err()).count() == 0
    }

    /// The platform of a child. This one has nothing any more.
    fn hand_over(&mut self) -> Self {
        let mut provider = Self::new(self.memory.hand_over(), self.accounting);
        provider.keys = std::mem::take(&mut self.keys);
        provider.carrier = self.carrier.fork();
        provider
    }
}
