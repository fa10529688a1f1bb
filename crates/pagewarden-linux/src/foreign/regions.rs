//! Which frame is which page of which file.
//!
//! Owns the descriptors. Invariants: pieces are sorted and share no frame; none has a frame that is our own; each lies
//! in one region, whose file is a regular one and not in huge pages.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::Permission;
use pagewarden::{PAGE_SIZE, PageCount};

use crate::faults::errno_of;

use super::ForeignError;

/// Frames that are consecutive pages of a file.
#[derive(Debug)]
pub struct ForeignRegion {
    /// The frames.
    pub frames: FrameRange,
    /// The file, open to read, and to write where that is permitted. It may end before the region does: an access past
    /// its end is a fault.
    pub file: OwnedFd,
    /// Where the first frame lies in it, in bytes: a multiple of the size of a page.
    pub offset: u64,
    /// What windows on it may allow.
    pub permission: Permission,
}

/// All regions, without what is our own.
#[derive(Debug)]
pub(super) struct Regions {
    regions: Vec<ForeignRegion>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    first: u64,
    end: u64,
    /// Its place in the list of regions.
    region: usize,
}

/// Frames that lie one behind the other in one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'r> {
    pub(super) file: &'r OwnedFd,
    pub(super) offset: u64,
    pub(super) pages: PageCount,
    pub(super) permission: Permission,
}

impl Regions {
    /// `regions` without the frames of `owned`.
    pub(super) fn new(mut regions: Vec<ForeignRegion>, owned: &[FrameRange]) -> Result<Self, ForeignError> {
        regions.sort_unstable_by_key(|region| region.frames.first());
        for region in &regions {
            region.check()?;
        }
        if let Some([_, second]) = regions.array_windows().find(|[one, next]| one.frames.intersects(next.frames)) {
            return Err(ForeignError::Overlap(second.frames.first()));
        }
        let mut owned: Vec<(u64, u64)> = owned.iter().map(|range| (range.first().get(), range.end())).collect();
        owned.sort_unstable();
        let mut pieces = Vec::new();
        for (index, region) in regions.iter().enumerate() {
            let (mut first, end) = (region.frames.first().get(), region.frames.end());
            for (owned_first, owned_end) in &owned {
                if *owned_first > first {
                    pieces.push(Piece { first, end: end.min(*owned_first), region: index });
                }
                first = first.max(*owned_end);
                if first >= end {
                    break;
                }
            }
            if first < end {
                pieces.push(Piece { first, end, region: index });
            }
        }
        Ok(Self { regions, pieces })
    }

    /// The longest run that starts with `first` and ends at `end` or before; `None` if `first` is not foreign.
    pub(super) fn run(&self, first: FrameNumber, end: u64) -> Option<Run<'_>> {
        let first = first.get();
        let after = self.pieces.partition_point(|piece| piece.first <= first);
        let piece = self.pieces[..after].last().filter(|piece| first < piece.end)?;
        let region = &self.regions[piece.region];
        Some(Run {
            file: &region.file,
            offset: region.offset + (first - region.frames.first().get()) * PAGE_SIZE,
            pages: PageCount::new(end.min(piece.end) - first),
            permission: region.permission,
        })
    }
}

impl ForeignRegion {
    fn check(&self) -> Result<(), ForeignError> {
        let first = self.frames.first();
        let end = self.frames.frames().get().checked_mul(PAGE_SIZE).and_then(|bytes| self.offset.checked_add(bytes));
        let is_in_a_file = end.is_some_and(|end| i64::try_from(end).is_ok());
        if !self.offset.is_multiple_of(PAGE_SIZE) || !is_in_a_file {
            return Err(ForeignError::Offset(first));
        }
        let host = |errno: nix::Error| ForeignError::Host(errno_of(errno));
        let status = fstat(self.file.as_fd()).map_err(host)?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(ForeignError::NotAFile(first));
        }
        if fstatfs(&self.file).map_err(host)?.filesystem_type() == HUGETLBFS_MAGIC {
            return Err(ForeignError::HugePages(first));
        }
        Ok(())
    }
}
