//! What memory costs that somebody else also touches: accesses to it, windows that come and go, reservations.
//!
//! Owns what each row does and with what. Every row is a [`contest`](crate::pager::contest), as those of the pager are.
//! The other world's memory is a memfd, which all who take part show or reach in their own way. Outside: what is
//! printed ([`crate::report`]).

pub mod accesses;
pub mod reservations;
pub mod windows;

use std::sync::Arc;

use anyhow::{Context, Result};
use pagewarden::PageCount;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{Permission, VmapManager};
use pagewarden_linux::foreign::{ForeignMemory, ForeignOptions, ForeignRegion, FutexEvents};

use crate::pager::raw::HostObject;

/// Windows on a memfd.
pub type Manager = Arc<VmapManager<ForeignMemory>>;

/// The number of the first frame of a memfd.
const FIRST: u64 = 0x1000;

/// Windows on the first `pages` pages of `object`, and the frames that these are.
fn manager(object: &HostObject, pages: u64) -> Result<(Manager, FrameRange)> {
    let first = FrameNumber::new(FIRST).context("a frame")?;
    let frames = FrameRange::new(first, PageCount::new(pages)).context("some frames")?;
    let file = object.file().try_clone()?;
    let region = ForeignRegion { frames, file, offset: 0, permission: Permission::ReadWrite };
    let options = ForeignOptions { regions: vec![region], ..ForeignOptions::default() };
    Ok((Arc::new(VmapManager::new(ForeignMemory::new(options)?, FutexEvents::new())), frames))
}
