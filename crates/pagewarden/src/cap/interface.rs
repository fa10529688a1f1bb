//! What a slot can hold.

use alloc::sync::Arc;
use core::any::Any;

use super::Rights;
use crate::addr::PageCount;

/// Names an interface, for tools and across tables. Two types with the same number are told apart all the same: they are
/// of the wrong type for each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct InterfaceId(pub u64);

impl InterfaceId {
    /// [`MemoryCap`](super::MemoryCap).
    pub const MEMORY: Self = Self(1);
    /// [`FrameAllocatorCap`](super::FrameAllocatorCap).
    pub const FRAME_ALLOCATOR: Self = Self(2);
    /// [`VirtualMemory`](super::VirtualMemory).
    pub const VIRTUAL_MEMORY: Self = Self(3);
    /// The first that is for others to give to interfaces of their own.
    pub const FIRST_FREE: Self = Self(1 << 16);
}

/// Whether handles to an object may leave the table that they were inserted in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Binding {
    /// They may, with [`Rights::TRANSFER`].
    Free,
    /// Never: the object belongs to one process, as its address space does.
    Bound,
}

/// A kind of object that handles refer to.
///
/// What these functions say is noted when an object is inserted, and holds for the handle and all that come from it.
pub trait Interface: Any + Send + Sync {
    /// The name of the interface.
    const ID: InterfaceId;

    /// What each handle to the object is charged as [`Resource::Committed`](crate::Resource::Committed): the pages that
    /// its holder can reach.
    fn pages(&self) -> PageCount {
        PageCount::ZERO
    }

    /// Whether handles to it may be transferred.
    fn binding(&self) -> Binding {
        Binding::Free
    }
}

/// An object and what may be done with it: what a handle stands for, without who pays.
#[derive(Clone, Debug)]
pub(super) struct Capability {
    object: Arc<dyn Any + Send + Sync>,
    pub(super) interface: InterfaceId,
    pub(super) rights: Rights,
    pub(super) binding: Binding,
}

impl Capability {
    pub(super) fn new<T: Interface>(object: Arc<T>, rights: Rights) -> Self {
        let binding = object.binding();
        Self { object, interface: T::ID, rights, binding }
    }

    pub(super) fn with_rights(&self, rights: Rights) -> Self {
        Self { rights, ..self.clone() }
    }

    /// The object, if it is a `T`. The type decides, not [`Interface::ID`]: it says the same, and cannot be forged.
    #[inline]
    pub(super) fn object<T: Interface>(&self) -> Option<&T> {
        self.object.downcast_ref()
    }

    /// As [`Self::object`], to be kept.
    #[inline]
    pub(super) fn shared_object<T: Interface>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.object).downcast().ok()
    }
}
