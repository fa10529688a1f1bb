//! Random requests around region edges and random words, with and without a platform that fails.

use std::vec::Vec;

use proptest::prelude::*;

use super::{BASE, check, manager, mmap, mprotect, mremap, munmap};
use crate::addr::{PAGE_SIZE, PageCount};
use crate::error::Errno;
use crate::ledger::{Limits, Resource};
use crate::linux::{
    FileTraits, Files, MapFlags, OpenFile, RemapFlags, RemapPagesRequest, Request, Segment, TargetProcess, answer,
    decode,
};
use crate::manager::ResourceLimits;
use crate::model::{run_calls, run_failing_calls};
use crate::object::{FileId, MemoryObject, ObjectKind};
use crate::prot::Prot;

/// Pages of the window that requests name.
const WINDOW: u64 = 24;

fn flags() -> impl Strategy<Value = MapFlags> {
    prop_oneof![
        4 => Just(MapFlags::PRIVATE | MapFlags::FIXED),
        2 => Just(MapFlags::SHARED | MapFlags::FIXED),
        1 => Just(MapFlags::PRIVATE),
        1 => Just(MapFlags::SHARED),
        1 => Just(MapFlags::PRIVATE | MapFlags::FIXED_NO_REPLACE),
        1 => Just(MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NO_RESERVE),
        1 => Just(MapFlags::PRIVATE | MapFlags::LOCKED),
    ]
}

fn remap_flags() -> impl Strategy<Value = RemapFlags> {
    (0_u64..8).prop_map(RemapFlags::from_bits_retain)
}

fn of_other_shapes() -> impl Strategy<Value = Request> {
    let place = || (1..WINDOW, 0_u64..6);
    prop_oneof![
        1 => (place(), place(), 0_i32..26).prop_map(|(a, b, advice)| Request::ProcessMadvise {
            ranges: [a, b].map(|(page, pages)| (BASE + page * PAGE_SIZE, pages * PAGE_SIZE)).to_vec(),
            advice,
        }),
        2 => (place(), 0_u64..8).prop_map(|((page, pages), page_offset)| Request::RemapPages(RemapPagesRequest {
            addr: BASE + page * PAGE_SIZE,
            len: pages * PAGE_SIZE,
            prot: 0,
            page_offset,
            flags: MapFlags::empty(),
        })),
        1 => Just(Request::Munlockall),
    ]
}

/// Any request about a small window.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    let place = || (1..WINDOW, 0_u64..6);
    prop_oneof![
        4 => (place(), 0_u64..8, flags()).prop_map(|((page, pages), prot, flags)| mmap(page, pages, prot, flags)),
        2 => place().prop_map(|(page, pages)| munmap(page, pages)),
        3 => (place(), 0_u64..8).prop_map(|((page, pages), prot)| mprotect(page, pages, prot)),
        3 => (place(), place(), remap_flags()).prop_map(|(from, to, flags)| mremap(from, to, flags)),
        1 => (0_u64..40_000).prop_map(|bytes| Request::Brk { addr: 0x20_0000 + bytes }),
        1 => (place(), 0_i32..26).prop_map(|((page, pages), advice)| Request::Madvise {
            addr: BASE + page * PAGE_SIZE,
            len: pages * PAGE_SIZE,
            advice,
        }),
        3 => of_other_shapes(),
        1 => (place(), 0_u64..2).prop_map(|((page, pages), flags)| Request::Mlock {
            addr: BASE + page * PAGE_SIZE,
            len: pages * PAGE_SIZE,
            flags,
        }),
        1 => (0_u64..8).prop_map(|flags| Request::Mlockall { flags }),
        2 => rare_request(),
    ]
}

fn rare_request() -> impl Strategy<Value = Request> {
    let place = || (1..WINDOW, 0_u64..6);
    prop_oneof![
        1 => (place(), 0_u64..8, -1_i32..4).prop_map(|((page, pages), prot, key)| Request::PkeyMprotect {
            addr: BASE + page * PAGE_SIZE,
            len: pages * PAGE_SIZE,
            prot,
            key,
        }),
        1 => (0_u64..4).prop_map(|rights| Request::PkeyAlloc { flags: 0, rights }),
        1 => (-1_i32..4).prop_map(|key| Request::PkeyFree { key }),
        1 => (1..WINDOW).prop_map(|page| Request::Mseal { addr: BASE + page * PAGE_SIZE, len: PAGE_SIZE, flags: 0 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn manager_platform_and_ledger_agree(requests in prop::collection::vec(request(), 1..60)) {
        let (ledger, mut manager) = manager(Limits::UNLIMITED.with(Resource::Committed, 40));
        for request in &requests {
            let before = manager.maps_text();
            let planned = manager.plan(request).map(|plan| plan.outcome());
            let answer = manager.call(request);
            prop_assert_eq!(planned.unwrap_or_else(Err), answer, "the plan does not say what happens");
            if let Err(refusal) = planned {
                prop_assert_eq!(before, manager.maps_text(), "{} and yet something changed", refusal);
            }
            check(&manager);
            prop_assert!(ledger.root().used(Resource::Committed) <= 40);
        }
        drop(manager);
        for resource in Resource::ALL {
            prop_assert_eq!(ledger.root().used(resource), 0, "{:?} leaked", resource);
        }
    }
}

/// Words as a hostile guest would choose them: anything, or something next to a limit.
fn word() -> impl Strategy<Value = u64> {
    let edges = [0, 1, PAGE_SIZE, 0x1_0000, 0x20_0000, BASE, 0x100_0000, 0x110_0000, 1 << 31, 1 << 63, u64::MAX];
    prop_oneof![
        any::<u64>(),
        (prop::sample::select(edges.to_vec()), -2_i64..3)
            .prop_map(|(edge, pages)| edge.wrapping_add_signed(pages * 4096)),
        (prop::sample::select(edges.to_vec()), -2_i64..3).prop_map(|(edge, bytes)| edge.wrapping_add_signed(bytes)),
        0_u64..64,
    ]
}

/// The numbers of the memory calls on x86-64.
const NUMBERS: [u64; 22] =
    [9, 10, 11, 12, 25, 26, 27, 28, 30, 67, 149, 150, 151, 152, 157, 325, 329, 330, 331, 462, 216, 440];

/// Descriptor 3 is a file, segment 5 has four pages; every name is "a", and every range that is read is of four pages.
struct OneOfEach;

impl Files for OneOfEach {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        let object = MemoryObject::new(ObjectKind::File(FileId { device: 1, inode: 2 }), "file");
        let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
        if fd == 3 { Ok(OpenFile { object, traits }) } else { Err(Errno::BadF) }
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        let object = MemoryObject::new(ObjectKind::SysV { id, pages: PageCount::new(4) }, "segment");
        if id == 5 { Ok(Segment { object, pages: PageCount::new(4), rights: Prot::all() }) } else { Err(Errno::Inval) }
    }

    fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
        Ok(b"a".to_vec())
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let start = BASE + addr % WINDOW * PAGE_SIZE;
        [start, 4 * PAGE_SIZE].into_iter().cycle().flat_map(u64::to_le_bytes).take(len).collect()
    }

    fn process(&mut self, pidfd: i32) -> Result<TargetProcess, Errno> {
        Ok(if pidfd & 1 == 0 { TargetProcess::Own } else { TargetProcess::Other })
    }
}

fn registers() -> impl Strategy<Value = (u64, [u64; 6])> {
    (prop::sample::select(NUMBERS.to_vec()), prop::array::uniform6(word()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_word_in_a_register_does_harm(calls in prop::collection::vec(registers(), 1..40)) {
        // A small budget, so that the array of pages stays small; reservations are bounded by the space.
        let (_ledger, mut manager) = manager(Limits::UNLIMITED.with(Resource::Committed, 600));
        // Limits of the guest's own, so that what is computed near them is computed here.
        let (address_space, data, locked) = (12 << 20, 1 << 20, 64 << 10);
        let limits = manager.config().limits.clone();
        manager.set_limits(ResourceLimits { address_space, data, locked, ..limits });
        for (number, args) in calls {
            if let Ok(Some(request)) = decode(number, args, &mut OneOfEach) {
                let result = manager.call(&request).map_err(|refusal| refusal.errno);
                let told = answer(&request, result, manager.program_break());
                prop_assert!(told.is_ok() || !matches!(request, Request::Brk { .. }), "brk knows no error");
            }
            manager.check_invariants();
        }
        check(&manager);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// The inputs of the fuzz target `abi`.
    #[test]
    fn a_guest_made_of_bytes_does_no_harm(input in prop::collection::vec(any::<u8>(), 1..1600)) {
        run_calls(&input);
    }

    /// The inputs of the fuzz target `plan_apply`.
    #[test]
    fn map_and_platform_agree_whatever_fails(input in prop::collection::vec(any::<u8>(), 1..1600)) {
        run_failing_calls(&input);
    }
}
