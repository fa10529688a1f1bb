//! Accesses: what comes of each, and what is in memory then, is what it is with `vm-memory`'s own memory.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile,
};

use pagewarden_vm_memory::FaultSafe;

use super::support::{Access, Guest, PAGE, file, pattern};

/// Two regions without a gap between them, and one behind a gap.
const REGIONS: [(u64, usize); 3] = [(0x1_0000, 2), (0x1_2000, 1), (0x2_0000, 1)];
const LENS: [usize; 8] = [0, 1, 2, 4, 8, 9, 4097, 3 * PAGE];

/// The same memory as `vm-memory` maps it.
fn mapped(file: &File) -> GuestMemoryMmap {
    let mut offset = 0;
    let regions = REGIONS.map(|(start, pages)| {
        let at = FileOffset::new(file.try_clone().unwrap(), offset);
        offset += (pages * PAGE) as u64;
        (GuestAddress(start), pages * PAGE, Some(at))
    });
    GuestMemoryMmap::from_ranges_with_files(regions).unwrap()
}

/// Has two memories do the same accesses, and compares what comes of each.
fn compare<A: Copy + std::fmt::Debug>(
    places: &[A],
    (ours, theirs): (impl Fn(Access, A, usize) -> String, impl Fn(Access, A, usize) -> String),
) {
    for at in places {
        for len in LENS {
            for access in Access::ALL {
                assert_eq!(ours(access, *at, len), theirs(access, *at, len), "{access:?} at {at:?}");
            }
        }
    }
}

#[test]
fn regions_do_what_those_of_vm_memory_do() {
    let guest = Guest::new(&REGIONS);
    let file = file(4);
    let peer = mapped(&file);
    let end = 2 * PAGE as u64;
    let places = [0, 1, 6, 8, 4088, 4093, end - 9, end - 8, end - 3, end - 1, end, end + 1, u64::MAX];
    let places = places.map(MemoryRegionAddress);
    let (ours, theirs) = (guest.memory.iter().next().unwrap(), peer.iter().next().unwrap());
    assert_eq!(
        (ours.len(), ours.start_addr(), ours.last_addr()),
        (theirs.len(), theirs.start_addr(), theirs.last_addr())
    );
    compare(
        &places,
        (|access, at, len| access.perform(ours, at, len), |access, at, len| access.perform(theirs, at, len)),
    );
    let mut bytes = vec![0; 4 * PAGE];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(guest.contents(), bytes);
    assert_ne!(bytes, pattern(4 * PAGE));
}

/// Places around the edges of the regions, and where none is.
fn addresses() -> Vec<GuestAddress> {
    let edges = [0x1_0000, 0x1_2000, 0x1_3000, 0x2_0000, 0x2_1000_u64];
    let near = edges.into_iter().flat_map(|edge| [edge - 9, edge - 8, edge - 2, edge - 1, edge, edge + 1, edge + 8]);
    near.chain([0, 0x1_0ffc, u64::MAX - 8, u64::MAX]).map(GuestAddress).collect()
}

#[test]
fn guest_addresses_lead_where_they_lead_with_vm_memory() {
    for is_fault_safe in [true, false] {
        let guest = Guest::new(&REGIONS);
        let file = file(4);
        let peer = mapped(&file);
        let theirs = |access: Access, at, len| access.perform(&peer, at, len);
        if is_fault_safe {
            let memory = FaultSafe::new(&guest.memory);
            compare(&addresses(), (|access, at, len| access.perform(&memory, at, len), theirs));
        } else {
            compare(&addresses(), (|access, at, len| access.perform(&guest.memory, at, len), theirs));
        }
        let mut bytes = vec![0; 4 * PAGE];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(guest.contents(), bytes);
        assert_ne!(bytes, pattern(4 * PAGE));
    }
}

#[test]
fn what_one_stores_another_mapping_shows() {
    let guest = Guest::new(&REGIONS);
    let again = super::support::manager(&guest.file, 4);
    let frames = super::support::frames(0, 4);
    let again = pagewarden_vm_memory::map_regions(&again, &[(GuestAddress(0), frames.as_slice())]).unwrap();
    FaultSafe::new(&guest.memory).write_slice(b"across two regions", GuestAddress(0x1_1ff8)).unwrap();
    let mut bytes = [0; 18];
    again.read_slice(&mut bytes, GuestAddress(0x1ff8)).unwrap();
    assert_eq!(&bytes, b"across two regions");
    again.write_slice(b"and back", GuestAddress(0x3000)).unwrap();
    FaultSafe::new(&guest.memory).read_slice(&mut bytes[..8], GuestAddress(0x2_0000)).unwrap();
    assert_eq!(&bytes[..8], b"and back");
}

#[test]
fn files_are_read_and_written_in_pieces() {
    const LEN: usize = 40 * PAGE;
    let guest = Guest::new(&[(0, 20), (20 * PAGE as u64, 21)]);
    let memory = FaultSafe::new(&guest.memory);
    let source: Vec<u8> = pattern(LEN).into_iter().rev().collect();
    memory.read_exact_volatile_from(GuestAddress(3), &mut source.as_slice(), LEN).unwrap();
    assert_eq!(guest.contents()[3..LEN + 3], source);
    let mut copy = Vec::new();
    memory.write_all_volatile_to(GuestAddress(3), &mut copy, LEN).unwrap();
    assert!(copy == source);

    let at_once = memory.read_volatile_from(GuestAddress(0), &mut source.as_slice(), LEN).unwrap();
    assert_eq!(at_once, 1 << 16, "a file is asked once");
    copy.clear();
    assert_eq!(memory.write_volatile_to(GuestAddress(0), &mut copy, LEN).unwrap(), 1 << 16);
    assert!(copy == source[..1 << 16]);
    let edge = GuestAddress(20 * PAGE as u64 - 8);
    assert_eq!(memory.read_volatile_from(edge, &mut source.as_slice(), 24).unwrap(), 24, "but for each region");
    let short = memory.read_exact_volatile_from(GuestAddress(0), &mut &source[..10], 11);
    assert!(matches!(short, Err(GuestMemoryError::IOError(error)) if error.kind() == ErrorKind::UnexpectedEof));
    let empty = memory.read_volatile_from(GuestAddress(0), &mut &source[..0], 11);
    assert_eq!(empty.unwrap(), 0);
}

/// What is interrupted once, and then says that it has read or taken one byte more than there is.
struct Liar {
    is_interrupted: bool,
}

impl Liar {
    fn lie(&mut self, len: usize) -> Result<usize, VolatileMemoryError> {
        if std::mem::replace(&mut self.is_interrupted, true) {
            Ok(len + 1)
        } else {
            Err(VolatileMemoryError::IOError(Error::from(ErrorKind::Interrupted)))
        }
    }
}

impl ReadVolatile for Liar {
    fn read_volatile<B: BitmapSlice>(&mut self, buf: &mut VolatileSlice<'_, B>) -> Result<usize, VolatileMemoryError> {
        self.lie(buf.len())
    }
}

impl WriteVolatile for Liar {
    fn write_volatile<B: BitmapSlice>(&mut self, buf: &VolatileSlice<'_, B>) -> Result<usize, VolatileMemoryError> {
        self.lie(buf.len())
    }
}

#[test]
fn files_that_lie_are_not_believed() {
    let guest = Guest::new(&REGIONS);
    let region = guest.memory.iter().next().unwrap();
    let start = MemoryRegionAddress(0);
    let liar = || Liar { is_interrupted: false };
    let read = region.read_volatile_from(start, &mut liar(), 16);
    assert!(matches!(read, Err(GuestMemoryError::CallbackOutOfRange)), "{read:?}");
    let written = region.write_volatile_to(start, &mut liar(), 16);
    assert!(matches!(written, Err(GuestMemoryError::CallbackOutOfRange)), "{written:?}");
    assert_eq!(guest.contents(), pattern(4 * PAGE));
}
