//! The right to take frames from a pool.
//!
//! Frames come as memory that is held by handle, zeroed, and never as physical addresses. Two accounts pay, for two
//! things: the pool's for the frames, once each, whoever has them; that of whoever holds a handle or a mapping for what
//! they can reach.

use alloc::sync::Arc;
use core::fmt;

use super::{Interface, InterfaceId};
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::pager::Pager;

/// The right to take frames from a pool.
pub struct FrameAllocatorCap<M: PhysMem + Mmu + 'static> {
    pager: Arc<Pager<M>>,
    pool: Account,
}

impl<M: PhysMem + Mmu + 'static> FrameAllocatorCap<M> {
    /// Frames of `pager`, at most as many as `pool` may have of [`Resource::Frames`](crate::Resource::Frames).
    pub fn new(pager: &Arc<Pager<M>>, pool: Account) -> Self {
        Self { pager: Arc::clone(pager), pool }
    }

    pub(super) const fn pager(&self) -> &Arc<Pager<M>> {
        &self.pager
    }

    /// Who pays for the frames.
    pub const fn pool(&self) -> &Account {
        &self.pool
    }
}

impl<M: PhysMem + Mmu + 'static> fmt::Debug for FrameAllocatorCap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameAllocatorCap").finish_non_exhaustive()
    }
}

impl<M: PhysMem + Mmu + 'static> Interface for FrameAllocatorCap<M> {
    const ID: InterfaceId = InterfaceId::FRAME_ALLOCATOR;
}
