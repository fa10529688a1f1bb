//! Memory objects: what regions map besides plain anonymous memory.
//!
//! An object is named by its kind. It owns the charge for memory that lives as long as the object does
//! (shared anonymous memory, memfds, SysV segments); private pages are charged by the space that maps
//! them. Regions hold objects by reference count: the charge goes when the last region goes.

pub(crate) mod memory;
mod pages;
mod reach;
mod snapshot;
pub mod source;
pub mod sysv;
pub(crate) mod views;
mod windows;

pub use memory::{Extent, ObjectSource, Placement};
pub use pages::ObjectPages;
pub use source::{PageBytes, PageSource};
pub use windows::Window;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use crate::addr::PageCount;
use crate::error::Errno;
use crate::fallible::try_arc;
use crate::ledger::Charge;
use sysv::Attachable;

/// Which file an object is: the device and inode numbers that `/proc/PID/maps` shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileId {
    /// Device number as the kernel encodes it in `st_dev`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// What an object is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Private anonymous memory with a name (`PR_SET_VMA_ANON_NAME`).
    NamedAnonymous,
    /// Anonymous memory that processes share (`MAP_SHARED | MAP_ANONYMOUS`).
    SharedAnonymous,
    /// A file of a file system.
    File(FileId),
    /// A device file.
    Device(FileId),
    /// The device of zero pages, `/dev/zero`. Private maps of it are anonymous memory with a file's name.
    ZeroDevice(FileId),
    /// A file that lives in memory (`memfd_create`).
    Memfd(FileId),
    /// A System V segment (`shmget`).
    SysV {
        /// Its identifier.
        id: i32,
        /// Its size.
        pages: PageCount,
    },
    /// Pages that the kernel gives every process: `[vdso]`, `[vvar]`.
    Special,
    /// Memory that processes hold by handles, each page as long as somebody reaches it.
    Capability,
}

/// Something that regions map. Compared by identity.
#[derive(Debug)]
pub struct MemoryObject {
    kind: ObjectKind,
    /// The path or name to show in a map; may be empty.
    name: Cow<'static, str>,
    /// What the object itself costs; dropped with it.
    charge: Option<Charge>,
    /// Whether large maps of it are placed on huge-page boundaries.
    is_huge_aligned: bool,
    /// How many pages there are, where that never changes.
    pages: Option<PageCount>,
    /// Who has the segment attached, if a table of segments keeps count.
    attachable: Option<Attachable>,
    /// Its pages, where frames are ours: what a [pager](crate::pager) has made for it.
    memory: spin::Once<Arc<dyn Any + Send + Sync>>,
}

impl MemoryObject {
    /// An object that costs nothing by itself.
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self::plain(kind, Cow::Owned(name.into())))
    }

    /// The same, on a file system that places large maps on huge-page boundaries (ext4, xfs, btrfs).
    pub fn new_huge_aligned(kind: ObjectKind, name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { is_huge_aligned: true, ..Self::plain(kind, Cow::Owned(name.into())) })
    }

    /// An object that holds `charge` for as long as it lives.
    pub fn with_charge(kind: ObjectKind, name: impl Into<String>, charge: Charge) -> Arc<Self> {
        Arc::new(Self { charge: Some(charge), ..Self::plain(kind, Cow::Owned(name.into())) })
    }

    /// An object that a request of a guest makes.
    pub(crate) fn try_new(
        kind: ObjectKind,
        name: impl Into<Cow<'static, str>>,
        charge: Option<Charge>,
    ) -> Result<Arc<Self>, Errno> {
        try_arc(Self { charge, ..Self::plain(kind, name.into()) })
    }

    /// Anonymous memory of `pages` pages that processes share.
    pub(crate) fn shared_anonymous(pages: PageCount, charge: Charge) -> Result<Arc<Self>, Errno> {
        let plain = Self::plain(ObjectKind::SharedAnonymous, Cow::Borrowed("/dev/zero (deleted)"));
        try_arc(Self { charge: Some(charge), pages: Some(pages), ..plain })
    }

    /// A segment that wants to know who has it attached.
    pub(crate) fn segment(
        kind: ObjectKind,
        name: String,
        charge: Charge,
        attachable: Attachable,
    ) -> Result<Arc<Self>, Errno> {
        let plain = Self::plain(kind, Cow::Owned(name));
        try_arc(Self { charge: Some(charge), attachable: Some(attachable), ..plain })
    }

    const fn plain(kind: ObjectKind, name: Cow<'static, str>) -> Self {
        let pages = match kind {
            ObjectKind::SysV { pages, .. } => Some(pages),
            _ => None,
        };
        Self { kind, name, charge: None, is_huge_aligned: false, pages, attachable: None, memory: spin::Once::new() }
    }

    /// How many pages there are, where that never changes. A mapping may be longer.
    pub const fn pages(&self) -> Option<PageCount> {
        self.pages
    }

    /// What a pager keeps for it, made by `make` if there is none yet.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn memory_or_make(
        &self,
        make: impl FnOnce() -> Result<Arc<dyn Any + Send + Sync>, Errno>,
    ) -> Result<&Arc<dyn Any + Send + Sync>, Errno> {
        self.memory.try_call_once(make)
    }

    /// Who is to be told of attaches.
    pub(crate) const fn attachable(&self) -> Option<&Attachable> {
        self.attachable.as_ref()
    }

    /// What the object is.
    pub const fn kind(&self) -> &ObjectKind {
        &self.kind
    }

    /// The path or name to show in a map.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the object itself costs.
    pub const fn charge(&self) -> Option<&Charge> {
        self.charge.as_ref()
    }

    /// Whether large maps of it are placed on huge-page boundaries.
    pub const fn is_huge_aligned(&self) -> bool {
        self.is_huge_aligned
    }

    /// Whether both are private anonymous memory of one name: such regions may merge.
    pub fn is_same_name_as(&self, other: &Self) -> bool {
        self.kind == ObjectKind::NamedAnonymous && other.kind == ObjectKind::NamedAnonymous && self.name == other.name
    }
}
