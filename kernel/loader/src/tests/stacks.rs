//! What a program finds on its first stack.

use std::vec;
use std::vec::Vec;

use super::elf::{Elf, TEXT};
use super::{Space, World, pages, read, regions};
use crate::{Arguments, Image, LoadError, STACK_TOP, map_stack};
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::Access;
use pagewarden::{Errno, Prot, RegionFlags, VirtAddr};

const RANDOM: [u8; 16] = *b"sixteen of them!";

fn word(space: &Space, at: u64) -> u64 {
    u64::from_le_bytes(read(space, at, 8).try_into().unwrap())
}

/// The string at `at`, up to its zero.
fn string(space: &Space, at: u64) -> Vec<u8> {
    (at..STACK_TOP.as_u64()).map(|at| read(space, at, 1)[0]).take_while(|byte| *byte != 0).collect()
}

/// What a C library makes of the stack: the arguments, the environment, the auxiliary vector.
fn as_read_by_a_program(space: &Space, rsp: u64) -> (Vec<Vec<u8>>, usize, Vec<(u64, u64)>) {
    let argc = word(space, rsp);
    let argv = (1..=argc).map(|index| string(space, word(space, rsp + 8 * index))).collect();
    assert_eq!(word(space, rsp + 8 * (argc + 1)), 0, "the end of argv");
    let environment = rsp + 8 * (argc + 2);
    let variables = (0..).take_while(|index| word(space, environment + 8 * index) != 0).count();
    let mut at = environment + 8 * (variables as u64 + 1);
    let mut auxiliary = Vec::new();
    while word(space, at) != 0 {
        auxiliary.push((word(space, at), word(space, at + 8)));
        at += 16;
    }
    assert_eq!(word(space, at + 8), 0);
    (argv, variables, auxiliary)
}

fn value(auxiliary: &[(u64, u64)], kind: u64) -> Option<u64> {
    auxiliary.iter().find(|(has, _)| *has == kind).map(|(_, value)| *value)
}

#[test]
fn a_program_finds_its_arguments_and_the_auxiliary_vector() {
    let world = World::new();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    for count in 0..5 {
        let space = world.space();
        let others = &[b"one".as_slice(), b"", b"three 3", b"\xff"][..count];
        let rsp = map_stack(&space, &Arguments { image, name: b"name", others, random: RANDOM }).unwrap().as_u64();
        assert!(rsp.is_multiple_of(16), "{rsp:#x}");
        let (argv, variables, auxiliary) = as_read_by_a_program(&space, rsp);
        assert_eq!(argv[0], b"name");
        assert_eq!(argv[1..], *others);
        assert_eq!(variables, 0);
        let kinds: Vec<u64> = auxiliary.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [3, 4, 5, 6, 9, 25, 31]);
        for (kind, expected) in [(3, 0x40_0040), (4, 56), (5, 7), (6, 4096), (9, 0x40_1000)] {
            assert_eq!(value(&auxiliary, kind), Some(expected), "{kind}");
        }
        let random = value(&auxiliary, 25).unwrap();
        assert!(random.is_multiple_of(16), "{random:#x}");
        assert_eq!(read(&space, random, 16), RANDOM);
        assert_eq!(string(&space, value(&auxiliary, 31).unwrap()), b"name");
    }
    world.check_empty();
}

#[test]
fn nothing_is_said_of_headers_that_are_not_in_memory() {
    let world = World::new();
    let space = world.space();
    let mut elf = Elf::usual();
    elf.programs[TEXT].file_bytes = 64;
    let file = elf.to_bytes();
    let image = Image::parse(&file).unwrap();
    let rsp = map_stack(&space, &Arguments { image, name: b"", others: &[], random: RANDOM }).unwrap().as_u64();
    assert!(rsp.is_multiple_of(16), "{rsp:#x}");
    let (argv, _, auxiliary) = as_read_by_a_program(&space, rsp);
    assert_eq!(argv, [b""]);
    let kinds: Vec<u64> = auxiliary.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [6, 9, 25, 31]);
}

#[test]
fn a_stack_has_four_pages_and_grows() {
    let world = World::new();
    let space = world.space();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    map_stack(&space, &Arguments { image, name: b"a", others: &[], random: RANDOM }).unwrap();
    assert_eq!(regions(&space), [(pages(0x7fff_ffff_a000, 0x7fff_ffff_e000), Prot::READ | Prot::WRITE)]);
    space.with_manager(|manager| {
        let entry = manager.map().iter().next().unwrap();
        assert!(entry.region.flags.contains(RegionFlags::GROWS_DOWN));
        assert!(!entry.region.is_shared());
    });
    space.fault(VirtAddr::new(0x7fff_ffff_9ff8), Access::Write).unwrap();
    assert_eq!(regions(&space)[0].0, pages(0x7fff_ffff_9000, 0x7fff_ffff_e000));
    assert!(space.fault(STACK_TOP, Access::Write).is_err());
}

#[test]
fn arguments_may_fill_the_stack_and_no_more() {
    let world = World::new();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    let start = |others: &[&[u8]]| {
        let space = world.space();
        let outcome = map_stack(&space, &Arguments { image, name: b"name", others, random: RANDOM });
        assert_eq!(regions(&space).len(), usize::from(outcome.is_ok()));
        outcome.map(|rsp| (rsp.as_u64(), as_read_by_a_program(&space, rsp.as_u64()).0))
    };
    let long = vec![b'x'; 5 * 4096];
    let longest = (0..long.len()).rev().find(|len| start(&[&long[..*len]]).is_ok()).unwrap();
    // 5 words of arguments, 8 pairs, 16 bytes, the name.
    assert_eq!(longest, 4 * 4096 - (5 * 8 + 8) - 8 * 16 - 16 - 5 - 1);
    let (rsp, argv) = start(&[&long[..longest]]).unwrap();
    assert_eq!((rsp, argv[1].len()), (0x7fff_ffff_a000, longest));
    assert_eq!(start(&[&long[..=longest]]), Err(LoadError::TooLong));

    let most = (0..4096).rev().find(|count| start(&vec![b"".as_slice(); *count]).is_ok()).unwrap();
    let (rsp, argv) = start(&vec![b"".as_slice(); most]).unwrap();
    assert_eq!(argv.len(), most + 1);
    assert!((0x7fff_ffff_a000..0x7fff_ffff_a020).contains(&rsp), "{rsp:#x}");
    assert_eq!(start(&vec![long.as_slice(); 100_000]), Err(LoadError::TooLong));
    assert_eq!(Errno::from(LoadError::TooLong).raw(), 7);
    world.check_empty();
}

#[test]
fn arguments_have_no_zeros_inside() {
    let world = World::new();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    for (name, other) in [(b"na\0me".as_slice(), b"".as_slice()), (b"name", b"\0")] {
        let space = world.space();
        let refused = map_stack(&space, &Arguments { image, name, others: &[other], random: [0; 16] });
        assert_eq!(refused, Err(LoadError::ZeroInside));
        assert_eq!(regions(&space), []);
    }
}

#[test]
fn a_stack_takes_nobodys_place() {
    let world = World::new();
    let space = world.space();
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    let there = (0x7fff_ffff_d000, 0x1000);
    let request = MmapRequest { addr: there.0, len: there.1, prot: 1, flags, source: MapSource::Anonymous, offset: 0 };
    space.call(&Request::Mmap(request)).unwrap();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    let refused = map_stack(&space, &Arguments { image, name: b"a", others: &[], random: RANDOM }).unwrap_err();
    assert_eq!(Errno::from(refused), Errno::Exist);
    assert_eq!(regions(&space), [(pages(there.0, there.0 + there.1), Prot::READ)]);
}
