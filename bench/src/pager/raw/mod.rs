//! All unsafe code of the bench: memory as a kernel sees it, and peers whose interface is unsafe.
//!
//! Everybody's tables lie in one [`DirectMap`] that lives as long as the program; who has which frames of it is settled
//! when it is handed out ([`Portion`]), so nobody touches a word of somebody else's.

mod free_list;
mod host;
mod mapper;
mod memory;
mod multiarch;

pub use free_list::FreeListFrames;
pub use host::{HostMapping, HostObject};
pub use mapper::OffsetMapper;
pub use memory::{DirectMap, Portion};
pub use multiarch::Multiarch;
