//! What a guest is stopped for, and that it hurts nobody else.

use pagewarden::manager::Access;

use super::{cages, call, map, program, start, trap};
use crate::{CageError, Ended, Setup, TrapKind, Val};

#[test]
fn a_program_maps_stores_loads_and_unmaps() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, ""));
    let address = map(&mut cage, 8192);
    call(&mut cage, "store", &[address + 4096, 77]);
    assert_eq!(call(&mut cage, "load", &[address + 4096]), 77);
    assert_eq!(call(&mut cage, "load", &[address]), 0);
    assert_eq!(call(&mut cage, "munmap", &[address, 8192]), 0);
    let trap = trap(&mut cage, "load", &[address + 4096]);
    let at = u64::from(address.cast_unsigned()) + 4096;
    assert_eq!((trap.kind, trap.address, trap.access), (TrapKind::Hole, Some(at), Some(Access::Read)));
}

#[test]
fn a_trap_names_address_access_region_and_functions() {
    let cages = cages();
    let parts = r#"(func $culprit (param i32) (i64.store offset=8 (local.get 0) (i64.const 1)))
        (func $outer (export "go") (param i32) (call $culprit (local.get 0)))"#;
    let mut cage = start(&cages, &program(&cages, parts));
    let address = map(&mut cage, 4096);
    call(&mut cage, "mprotect", &[address, 4096, 1]);
    let trap = trap(&mut cage, "go", &[address]);
    let at = u64::from(address.cast_unsigned()) + 8;
    assert_eq!((&trap.kind, trap.address, trap.access), (&TrapKind::Rights, Some(at), Some(Access::Write)));
    assert_eq!(trap.region.as_deref(), Some("ffffe000-fffff000 r--p 00000000 00:00 0"));
    assert!(trap.backtrace.contains("culprit") && trap.backtrace.contains("outer"), "{}", trap.backtrace);
    assert_eq!(trap.signal(), libc::SIGSEGV);
    assert_eq!(
        trap.to_string(),
        "the mapping does not allow it: store at 0xffffe008 in ffffe000-fffff000 r--p 00000000 00:00 0"
    );
}

#[test]
fn an_access_beyond_4_gib_is_a_trap_with_its_address() {
    let cages = cages();
    let parts = r#"(func (export "far") (param i32) (result i32) (i32.load offset=0x7ffffff0 (local.get 0)))
        (func (export "farther") (param i32) (result i32) (i32.load offset=0xffffffff (local.get 0)))
        (func (export "edge") (param i32) (result i64) (i64.load (local.get 0)))"#;
    let mut cage = start(&cages, &program(&cages, parts));
    let far = trap(&mut cage, "far", &[-1]);
    assert_eq!((far.kind, far.address), (TrapKind::Hole, Some(0xffff_ffff + 0x7fff_fff0)));
    assert_eq!(trap(&mut cage, "load", &[16]).address, Some(16));
    let farther = trap(&mut cage, "farther", &[-1]);
    assert_eq!((farther.kind, farther.address), (TrapKind::Hole, None), "the code itself has seen it");
    let edge = trap(&mut cage, "edge", &[-4]);
    assert_eq!(edge.kind, TrapKind::Hole);
    assert_eq!(call(&mut cage, "load", &[70_000]), 0, "the cage goes on");
}

#[test]
fn each_kind_of_trap_is_told_apart() {
    let cages = cages();
    let parts = r#"
        (table 1 funcref)
        (func (export "unreachable") (unreachable))
        (func (export "divide") (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
        (func (export "overflow") (param i32) (result i32) (i32.div_s (i32.const 0x80000000) (local.get 0)))
        (func (export "nothing") (call_indirect (i32.const 0)))
        (func (export "loop") (call $again)) (func $again (call $again) (call $again))"#;
    let mut cage = start(&cages, &program(&cages, parts));
    let signal = |trap: crate::CageTrap| (trap.signal(), trap.kind);
    assert_eq!(signal(trap(&mut cage, "unreachable", &[])), (libc::SIGILL, TrapKind::Unreachable));
    assert_eq!(signal(trap(&mut cage, "divide", &[0])), (libc::SIGFPE, TrapKind::Arithmetic));
    assert_eq!(signal(trap(&mut cage, "overflow", &[-1])), (libc::SIGFPE, TrapKind::Arithmetic));
    assert_eq!(signal(trap(&mut cage, "loop", &[])), (libc::SIGSEGV, TrapKind::StackOverflow));
    let (number, kind) = signal(trap(&mut cage, "nothing", &[]));
    assert_eq!(number, libc::SIGABRT);
    assert!(matches!(kind, TrapKind::Other(ref text) if text.contains("uninitialized element")), "{kind:?}");
}

#[test]
fn a_page_without_memory_for_it_is_out_of_memory() {
    let cages = crate::Cages::new(&crate::CageOptions { memory_bytes: 4 << 20, ..Default::default() }).unwrap();
    let parts = r#"(func (export "touch") (param $at i32) (param $end i32)
        (loop (i32.store (local.get $at) (i32.const 1))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (local.get $end)))))"#;
    let mut cage = start(&cages, &program(&cages, parts));
    let address = map(&mut cage, 16 << 20);
    let trap = trap(&mut cage, "touch", &[address, address + (16 << 20)]);
    assert_eq!((trap.kind, trap.access), (TrapKind::OutOfMemory, Some(Access::Write)));
    assert_eq!(call(&mut cage, "munmap", &[address, 16 << 20]), 0);
    let address = map(&mut cage, 4096);
    call(&mut cage, "store", &[address, 1]);
}

#[test]
fn what_is_no_program_for_a_cage_is_refused_with_a_reason() {
    let cages = cages();
    let reason = |text: &[u8]| cages.load(text, "test").unwrap_err().to_string();
    assert!(reason(b"(module").starts_with("this is no WebAssembly text"));
    assert!(reason(b"(module)").contains("no memory"));
    assert!(reason(b"\0asm\x01\0\0\0\xff").contains("not a WebAssembly module"));
    let unknown = reason(br#"(module (memory 1) (import "env" "gone" (func)))"#);
    assert!(unknown.contains("env") && unknown.contains("gone"), "{unknown}");
    let program = cages.load(b"(module (memory 65536))", "test").unwrap();
    assert!(matches!(cages.start(&program, Setup::default()), Err(CageError::Refused { .. })), "all 4 GiB");
}

#[test]
fn a_start_function_runs_once_and_not_in_a_fork() {
    let cages = cages();
    let parts = r#"(start $begin) (func $begin (i32.store (i32.const 70000) (i32.add (i32.load (i32.const 70000)) (i32.const 1))))"#;
    let mut cage = start(&cages, &program(&cages, parts));
    let mut child = cage.fork().unwrap();
    assert_eq!((call(&mut cage, "load", &[70_000]), call(&mut child, "load", &[70_000])), (1, 1));
    let failing = program(&cages, "(start $begin) (func $begin (unreachable))");
    assert!(
        matches!(cages.start(&failing, Setup::default()), Err(CageError::Start(ended)) if matches!(*ended, Ended::Trap(_)))
    );
    assert_eq!(cages.processes(), 2);
    assert!(matches!(cage.call("load", &[Val::F32(0)]), Err(Ended::NotCalled(CageError::Arguments(_)))));
}
