//! What is in memory when an image was loaded.

use std::vec;
use std::vec::Vec;

use super::elf::{DATA, Elf, LOAD, Program, RODATA, TEXT, W, X};
use super::{World, pages, read, regions};
use crate::{Image, LoadError};
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::{Access, Cause, Layout, Policy, SpaceConfig, WxPolicy};
use pagewarden::pager::Fault;
use pagewarden::{Errno, Prot, VirtAddr};

fn map_at(addr: u64, len: u64) -> Request {
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    Request::Mmap(MmapRequest { addr, len, prot: 3, flags, source: MapSource::Anonymous, offset: 0 })
}

fn usual_regions() -> Vec<(pagewarden::PageRange, Prot)> {
    vec![
        (pages(0x40_0000, 0x40_2000), Prot::READ | Prot::EXEC),
        (pages(0x40_2000, 0x40_3000), Prot::READ),
        (pages(0x60_4000, 0x60_8000), Prot::READ | Prot::WRITE),
    ]
}

#[test]
fn segments_have_their_bytes_and_rights_and_zeros_around() {
    let world = World::new();
    let space = world.space();
    let file = Elf::usual().to_bytes();
    Image::parse(&file).unwrap().map(&space).unwrap();
    assert_eq!(regions(&space), usual_regions());

    assert_eq!(read(&space, 0x40_0000, 0x1234), file[..0x1234]);
    assert_eq!(read(&space, 0x40_1234, 0x2000 - 0x1234), vec![0; 0x2000 - 0x1234]);
    assert_eq!(read(&space, 0x40_2000, 0x10), [0; 0x10], "of the page that the file has before the constants");
    assert_eq!(read(&space, 0x40_2010, 0x20), file[0x2010..0x2030]);
    assert_eq!(read(&space, 0x40_2030, 0x1000 - 0x30), vec![0; 0x1000 - 0x30]);
    assert_eq!(read(&space, 0x60_4000, 0x80), [0; 0x80]);
    assert_eq!(read(&space, 0x60_4080, 0x1000), file[0x3080..0x4080]);
    assert_eq!(read(&space, 0x60_5080, 0x2f80), vec![0; 0x2f80]);
    drop(space);
    world.check_empty();
}

#[test]
fn a_processor_can_do_what_segments_allow_and_nothing_else() {
    let world = World::new();
    let space = world.space();
    let file = Elf::usual().to_bytes();
    Image::parse(&file).unwrap().map(&space).unwrap();
    world.machine.activate(0, space.root());
    let attempt = |address: u64, access: Access| -> Result<(), Fault> {
        let address = VirtAddr::new(address);
        let mut byte = [0];
        let mut once = || match access {
            Access::Read => world.machine.load(0, address, &mut byte),
            Access::Write => world.machine.store(0, address, &[7]),
            Access::Execute => world.machine.fetch(0, address, &mut byte),
        };
        while let Err(fault) = once() {
            space.fault(fault.address, access)?;
        }
        Ok(())
    };
    for (address, allowed) in [
        (0x40_1000, [Access::Read, Access::Execute].as_slice()),
        (0x40_2010, &[Access::Read]),
        (0x60_4080, &[Access::Read, Access::Write]),
        (0x60_7fff, &[Access::Read, Access::Write]),
        (0x40_3000, &[]),
        (0x60_8000, &[]),
    ] {
        for access in [Access::Read, Access::Write, Access::Execute] {
            let outcome = attempt(address, access);
            assert_eq!(outcome.is_ok(), allowed.contains(&access), "{access:?} at {address:#x}: {outcome:?}");
        }
    }
    assert_eq!(read(&space, 0x40_1000, 1), [file[0x1000]]);
    assert_eq!(read(&space, 0x60_4080, 1), [7]);
}

#[test]
fn the_heap_begins_where_the_image_ends() {
    let world = World::new();
    let file = Elf::usual().to_bytes();
    let image = Image::parse(&file).unwrap();
    let space = world.space_of(SpaceConfig { brk: image.brk(), ..world.config() }).unwrap();
    image.map(&space).unwrap();
    assert_eq!(space.call(&Request::Brk { addr: 0 }), Ok(0x60_8000));
    assert_eq!(space.call(&Request::Brk { addr: 0x60_a123 }), Ok(0x60_a123));
    assert_eq!(read(&space, 0x60_a122, 1), [0]);
}

#[test]
fn rights_are_those_of_the_header_to_the_letter() {
    for (flags, prot) in [(0, Prot::NONE), (W, Prot::WRITE), (X, Prot::EXEC)] {
        let world = World::new();
        let space = world.space();
        let mut elf = Elf::usual();
        elf.programs[RODATA].flags = flags;
        Image::parse(&elf.to_bytes()).unwrap().map(&space).unwrap();
        assert_eq!(regions(&space)[1], (pages(0x40_2000, 0x40_3000), prot));
    }
}

#[test]
fn an_image_is_loaded_beside_what_is_there_or_not_at_all() {
    let world = World::new();
    for (there, len) in [(0x40_1000, 0x1000), (0x40_2000, 0x1000), (0x60_7000, 0x5000), (0x10_0000, 0x1000_0000)] {
        let space = world.space();
        space.call(&map_at(there, len)).unwrap();
        space.copy_to_user(VirtAddr::new(there), b"here").unwrap();
        let (before, usage) = (regions(&space), world.usage());
        let file = Elf::usual().to_bytes();
        let refused = Image::parse(&file).unwrap().map(&space).unwrap_err();
        assert_eq!(Errno::from(refused), Errno::Exist, "{refused}");
        assert_eq!((regions(&space), world.usage()), (before, usage));
        assert_eq!(read(&space, there, 4), *b"here");
    }
    world.check_empty();
    let space = world.space();
    space.call(&map_at(0x40_3000, 0x20_1000)).unwrap();
    Image::parse(&Elf::usual().to_bytes()).unwrap().map(&space).unwrap();
    assert_eq!(regions(&space).len(), 3, "what lies between goes on in the data");
}

#[test]
fn a_space_that_denies_new_code_cannot_be_loaded() {
    let world = World::new();
    let policy = Policy { wx: WxPolicy::Deny, ..Policy::default() };
    let space = world.space_of(SpaceConfig { policy, ..world.config() }).unwrap();
    let usage = world.usage();
    let refused = Image::parse(&Elf::usual().to_bytes()).unwrap().map(&space).unwrap_err();
    assert!(matches!(refused, LoadError::Refused(refusal) if refusal.cause == Cause::WxPolicy), "{refused}");
    assert_eq!((regions(&space), world.usage()), (vec![], usage));
}

#[test]
fn a_smaller_space_refuses_what_is_not_in_it() {
    let world = World::new();
    let layout = Layout { task_end: VirtAddr::new(0x60_7000), ..Layout::X86_64 };
    let space = world.space_of(SpaceConfig { layout, ..world.config() }).unwrap();
    let refused = Image::parse(&Elf::usual().to_bytes()).unwrap().map(&space).unwrap_err();
    assert_eq!(Errno::from(refused), Errno::NoMem);
    assert_eq!(regions(&space), []);
}

#[test]
fn memory_that_nobody_touches_is_not_taken() {
    let world = World::new();
    let space = world.space();
    let mut elf = Elf::usual();
    elf.programs[DATA].memory_bytes = 0x7f00_0000_0000;
    let bytes = elf.to_bytes();
    let image = Image::parse(&bytes).unwrap();
    image.map(&space).unwrap();
    assert!(world.unused.0 - world.usage().0 < 20, "frames");
    assert_eq!(image.program_break(), VirtAddr::new(0x7f00_0060_5000));
    assert_eq!(read(&space, 0x7f00_0060_4fff, 1), [0]);
    drop(space);
    world.check_empty();
}

#[test]
fn neighbours_with_other_rights_are_regions_of_their_own() {
    let world = World::new();
    let mut elf = Elf::usual();
    elf.programs = vec![elf.programs[TEXT]];
    elf.programs.extend(
        (2..32).map(|page| {
            Program::new(LOAD, (page % 2) * 2 + 4, 0x1000, 0x40_0000 + u64::from(page) * 0x1000, (1, 0x1000))
        }),
    );
    let space = world.space();
    Image::parse(&elf.to_bytes()).unwrap().map(&space).unwrap();
    assert_eq!(regions(&space).len(), 31);
}
