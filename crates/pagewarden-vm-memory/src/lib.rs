//! Guest memory for devices that are written against rust-vmm's `vm-memory`, shown in pagewarden's windows.
//!
//! A device model, in a process of its own or not, is given files that hold the memory of a guest. The guest's side
//! can change their contents at any time, and their lengths too: mapped the ordinary way, a truncated file ends the
//! device with SIGBUS. Here every region of guest memory is a window of a
//! [`VmapManager`](pagewarden::phys::VmapManager), reached by copies that end with an error when the memory is gone.
//!
//! * [`map_regions`] makes a [`WindowMemory`], which is a `vm_memory::GuestMemory` like any other: `virtio-queue` and
//!   whatever is generic over it take it as it is. (`vhost-user-backend` is not generic, it maps memory itself: a
//!   back-end that wants windows takes the table of memory regions from `vhost`.)
//! * [`WindowRegion`] is one region of it. Its own `Bytes<MemoryRegionAddress>` copies.
//! * [`FaultSafe`] goes through the regions' copies for `Bytes<GuestAddress>` as well.
//!
//! # Which way to go
//!
//! `vm-memory` implements `Bytes<GuestAddress>` itself for every `GuestMemory`, and does so with `VolatileSlice`s: raw
//! pointers into the window, which nothing can make return an error. So there are two ways to the same memory:
//!
//! | | `memory.read_slice(..)`, `Queue`, `Reader`, `Writer` | `FaultSafe::new(&memory).read_slice(..)` |
//! |---|---|---|
//! | is accepted as | `GuestMemory` | `Bytes<GuestAddress>` |
//! | accesses | `VolatileSlice` | copies between the window and memory of our own |
//! | memory that is gone | reads as zeros and takes stores, which go nowhere, and is counted | an error, `EFAULT` |
//!
//! Code that is generic over `GuestMemory` takes the first way, and the process lives. Code of one's own, and code
//! that is generic over `Bytes<GuestAddress>`, takes the second and is told. One who takes requests from a `Queue` and
//! hands their addresses to `FaultSafe` has both.
//!
//! A page that a `VolatileSlice` has found gone stays a page of zeros until its window goes, for copies too. Whoever
//! uses slices looks at [`lost_pages`](pagewarden_linux::foreign::ForeignMemory::lost_pages) before relying on what
//! was read.
//!
//! No reference to guest memory is made here. Of a slice, `vm-memory` makes references to atomics, to load and store
//! words.
//!
//! ```
//! # use std::sync::Arc;
//! # use nix::sys::memfd::{MFdFlags, memfd_create};
//! # use pagewarden::PageCount;
//! # use pagewarden::frame::{FrameNumber, FrameRange};
//! # use pagewarden::phys::{Permission, VmapManager};
//! # use pagewarden_linux::foreign::{ForeignMemory, ForeignOptions, FutexEvents, ForeignRegion};
//! # use pagewarden_vm_memory::{FaultSafe, map_regions};
//! # use vm_memory::{Bytes, GuestAddress};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let guest = std::fs::File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC)?);
//! guest.set_len(0x4000)?;
//!
//! let frames = FrameRange::new(FrameNumber::new(1).ok_or("a frame")?, PageCount::new(4)).ok_or("frames")?;
//! let region = ForeignRegion { frames, file: guest.try_clone()?.into(), offset: 0, permission: Permission::ReadWrite };
//! let options = ForeignOptions { regions: vec![region], ..ForeignOptions::default() };
//! let manager = Arc::new(VmapManager::new(ForeignMemory::new(options)?, FutexEvents::new()));
//! let frames: Vec<_> = frames.iter().collect();
//! let memory = map_regions(&manager, &[(GuestAddress(0x10_0000), &frames)])?;
//!
//! memory.write_obj(7_u32, GuestAddress(0x10_3000))?;
//! guest.set_len(0x3000)?;
//! let gone = FaultSafe::new(&memory).read_obj::<u32>(GuestAddress(0x10_3000));
//! assert!(gone.is_err());
//! # Ok(())
//! # }
//! ```

mod bytes;
mod fault_safe;
mod memory;
mod region;

pub use fault_safe::FaultSafe;
pub use memory::{MapError, WindowManager, WindowMemory, map_regions};
pub use region::WindowRegion;
