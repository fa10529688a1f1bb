//! Instructions on ranges of memory, which are calls here: what WebAssembly says, and holes.

use pagewarden::manager::Access;

use crate::tests::{cages, call, map, program, program_with, start, trap};
use crate::{Cage, TrapKind};

const BULK: &str = r#"
    (data $hello "hello, cage")
    (data (i32.const 66000) "active")
    (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32 i32) (memory.init $hello (local.get 0) (local.get 1) (local.get 2)))
    (func (export "drop") (data.drop $hello))
    (func (export "size") (result i32) (memory.size))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
"#;

fn cage() -> Cage {
    let cages = cages();
    start(&cages, &program(&cages, BULK))
}

fn bytes(cage: &Cage, at: i32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    cage.read(at.cast_unsigned(), &mut bytes).unwrap();
    bytes
}

#[test]
fn ranges_are_copied_as_if_by_a_buffer_between() {
    let mut cage = cage();
    let pattern: Vec<u8> = (0..40_000_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    for (to, len) in [(5, 100), (100, 5), (1, 200), (3, 39_000), (20_000, 20_000), (16_384, 20_000), (0, 4000)] {
        for is_up in [true, false] {
            let (from, target) = if is_up { (70_000, 70_000 + to) } else { (70_000 + to, 70_000) };
            cage.write(70_000, &pattern).unwrap();
            let mut wanted = pattern.clone();
            let at = |address: i32| usize::try_from(address - 70_000).unwrap();
            let len_bytes = usize::try_from(len).unwrap();
            wanted.copy_within(at(from)..at(from) + len_bytes, at(target));
            call(&mut cage, "copy", &[target, from, len]);
            assert!(bytes(&cage, 70_000, 40_000) == wanted, "{len} bytes from {from} to {target}");
        }
    }
}

#[test]
fn ranges_are_filled_and_initialized() {
    let mut cage = cage();
    call(&mut cage, "fill", &[70_001, 0x1ff, 20_000]);
    assert_eq!(bytes(&cage, 70_000, 2), [0, 0xff]);
    assert_eq!(bytes(&cage, 90_000, 3), [0xff, 0, 0]);
    call(&mut cage, "init", &[70_000, 7, 4]);
    assert_eq!(bytes(&cage, 70_000, 5), *b"cage\xff");
    assert_eq!(bytes(&cage, 66_000, 7), *b"active\0");
    assert_eq!(trap(&mut cage, "init", &[70_000, 8, 4]).kind, TrapKind::Hole, "beyond the segment");
    call(&mut cage, "drop", &[]);
    call(&mut cage, "init", &[70_000, 0, 0]);
    trap(&mut cage, "init", &[70_000, 0, 1]);
    assert_eq!(bytes(&cage, 70_000, 4), *b"cage");
}

#[test]
fn a_hole_stops_the_guest_at_its_address() {
    let mut cage = cage();
    let page = map(&mut cage, 0x3000);
    assert_eq!(call(&mut cage, "munmap", &[page + 0x1000, 0x1000]), 0);
    let hole = u64::from(page.cast_unsigned()) + 0x1000;
    let end = hole + 0x1000;
    let fill = trap(&mut cage, "fill", &[page + 0xffe, 1, 8]);
    assert_eq!((fill.kind, fill.address, fill.access), (TrapKind::Hole, Some(hole), Some(Access::Write)));
    let read = trap(&mut cage, "copy", &[page, page + 0xf00, 0x200]);
    assert_eq!((read.kind, read.address, read.access), (TrapKind::Hole, Some(hole), Some(Access::Read)));
    let write = trap(&mut cage, "copy", &[page + 0x1ff0, page, 0x100]);
    assert_eq!((write.address, write.access), (Some(end - 16), Some(Access::Write)));
    let init = trap(&mut cage, "init", &[page + 0x1000, 0, 2]);
    assert_eq!((init.address, init.access), (Some(hole), Some(Access::Write)));
    assert_eq!(trap(&mut cage, "copy", &[70_000, 0, 4]).address, Some(0), "NULL");
    call(&mut cage, "mprotect", &[page, 0x1000, 1]);
    assert_eq!(trap(&mut cage, "fill", &[page, 0, 4096]).kind, TrapKind::Rights);
    assert_eq!(call(&mut cage, "load", &[page]), 0);
}

#[test]
fn ranges_end_where_addresses_end() {
    let mut cage = cage();
    call(&mut cage, "copy", &[-1, 0, 0]);
    call(&mut cage, "fill", &[0, 0, 0]);
    for (name, args) in
        [("fill", [-1, 0, 2]), ("copy", [70_000, -4, 8]), ("copy", [-4, 70_000, -1]), ("fill", [8, 0, -1])]
    {
        let trap = trap(&mut cage, name, &args);
        assert_eq!(trap.kind, TrapKind::Hole, "{name} {args:?}");
    }
    assert_eq!(call(&mut cage, "load", &[70_000]), 0, "nothing was written");
    let highest = map(&mut cage, 4096);
    assert_eq!(trap(&mut cage, "load", &[16]).address, Some(16), "which says nothing of the next");
    let trap = trap(&mut cage, "fill", &[highest, 1, 0x2001]);
    assert_eq!((trap.kind, trap.address, call(&mut cage, "load", &[highest])), (TrapKind::Hole, None, 0));
}

#[test]
fn the_size_is_the_break_and_grows_with_it() {
    let mut cage = cage();
    assert_eq!(call(&mut cage, "size", &[]), 2);
    assert_eq!(call(&mut cage, "sbrk", &[100]), 0x2_0000);
    assert_eq!(call(&mut cage, "size", &[]), 3, "rounded up");
    assert_eq!(call(&mut cage, "grow", &[2]), 3);
    assert_eq!(call(&mut cage, "brk", &[0]), 0x5_0000);
    assert_eq!(call(&mut cage, "load", &[0x4_fffc]), 0);
    assert_eq!(call(&mut cage, "grow", &[0]), 5);
    assert_eq!(call(&mut cage, "grow", &[0xffff]), -1, "more than there is");
    assert_eq!(call(&mut cage, "grow", &[-1]), -1);
    assert_eq!(call(&mut cage, "mmap", &[0x6_1000, 4096, 3, 0x32]), 0x6_1000);
    assert_eq!(call(&mut cage, "grow", &[2]), -1, "a mapping is in the way");
    assert_eq!(call(&mut cage, "grow", &[1]), 5);
}

#[test]
fn a_memory_grows_to_its_maximum_and_from_nothing() {
    let cages = cages();
    let mut cage = start(&cages, &program_with(&cages, "(memory 1 3)", &BULK.replace("66000", "6000")));
    assert_eq!(call(&mut cage, "grow", &[3]), -1);
    assert_eq!(call(&mut cage, "grow", &[2]), 1);
    assert_eq!(call(&mut cage, "grow", &[1]), -1);
    let without_data = BULK.replace(r#"(data (i32.const 66000) "active")"#, "");
    let mut cage = start(&cages, &program_with(&cages, "(memory 0)", &without_data));
    assert_eq!((call(&mut cage, "size", &[]), call(&mut cage, "grow", &[0])), (0, 0));
    assert_eq!(trap(&mut cage, "load", &[4096]).kind, TrapKind::Hole);
    assert_eq!(call(&mut cage, "grow", &[1]), 0);
    assert_eq!((call(&mut cage, "size", &[]), call(&mut cage, "load", &[65532])), (1, 0));
    assert_eq!(trap(&mut cage, "load", &[4092]).address, Some(4092), "NULL is never mapped");
}
