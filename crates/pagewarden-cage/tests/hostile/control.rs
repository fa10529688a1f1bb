//! Stacks that end, code that is not to be reached, numbers that do not fit, functions that are others than thought.

use pagewarden_cage::{CageError, Setup, TrapKind, Val};

use crate::support::{Guest, beside_a_witness, cages, console};

const CODE: &str = r#"
    (type $takes (func (param i64)))
    (type $plain (func))
    (table $functions 4 funcref)
    (elem (table $functions) (i32.const 1) func $plain $takes)
    (func $plain)
    (func $takes (param i64))
    (func (export "unreachable") unreachable)
    (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func (export "rest") (param i32 i32) (result i32) (i32.rem_u (local.get 0) (local.get 1)))
    (func (export "divide long") (param i32 i32)
      (drop (i64.div_u (i64.extend_i32_u (local.get 0)) (i64.extend_i32_u (local.get 1)))))
    (func (export "truncate") (param i32)
      (drop (i32.trunc_f64_s (f64.mul (f64.convert_i32_s (local.get 0)) (f64.const 2)))))
    (func (export "truncate nothing") (drop (i64.trunc_f32_u (f32.const nan))))
    (func (export "indirect") (param i32) (call_indirect $functions (type $plain) (local.get 0)))
    (func (export "tail") (param i32) (return_call_indirect $functions (type $plain) (local.get 0)))"#;

#[test]
fn what_webassembly_forbids_is_a_trap_of_its_kind() {
    beside_a_witness(&console(CODE), |guest| {
        let cases: &[(&str, &[u32], TrapKind, i32)] = &[
            ("unreachable", &[], TrapKind::Unreachable, libc::SIGILL),
            ("divide", &[1, 0], TrapKind::Arithmetic, libc::SIGFPE),
            ("divide", &[0x8000_0000, u32::MAX], TrapKind::Arithmetic, libc::SIGFPE),
            ("rest", &[1, 0], TrapKind::Arithmetic, libc::SIGFPE),
            ("divide long", &[1, 0], TrapKind::Arithmetic, libc::SIGFPE),
            ("truncate", &[0x7fff_ffff], TrapKind::Arithmetic, libc::SIGFPE),
            ("truncate nothing", &[], TrapKind::Arithmetic, libc::SIGFPE),
        ];
        for (name, args, kind, signal) in cases {
            let trap = guest.trap(name, args);
            assert_eq!((&trap.kind, trap.signal()), (kind, *signal), "{name}{args:x?}");
            assert_eq!((trap.address, trap.access, trap.region), (None, None, None));
            assert!(!trap.backtrace.is_empty());
        }
        assert_eq!(guest.int("divide", &[6, 3]), 2);
        for name in ["indirect", "tail"] {
            assert!(guest.call(name, &[1]).is_ok());
            for (index, why) in
                [(0, "uninitialized element"), (3, "uninitialized"), (2, "indirect call type mismatch"), (4, "table")]
            {
                let trap = guest.trap(name, &[index]);
                assert!(matches!(&trap.kind, TrapKind::Other(text) if text.contains(why)), "{name} {index}: {trap}");
                assert_eq!(trap.signal(), libc::SIGABRT);
            }
        }
    });
}

const DEEP: &str = r#"
    (global $depth (mut i32) (i32.const 0))
    (func $forever (export "forever") (call $forever) (call $forever))
    (func $wide (export "wide") (param v128 v128 v128 v128) (result v128)
      (v128.xor (local.get 0) (call $wide (local.get 1) (local.get 2) (local.get 3) (local.get 0))))
    (func (export "begin wide") (drop (call $wide (v128.const i64x2 1 2) (v128.const i64x2 3 4) (v128.const i64x2 5 6) (v128.const i64x2 7 8))))
    (func $asking (export "asking") (param i32)
      (drop (call $getpid))
      (memory.copy (i32.const 8192) (i32.const 16384) (i32.const 20000))
      (drop (call $syscall (i64.const 9) (i64.const 0) (i64.const 4096) (i64.const 3) (i64.const 0x22) (i64.const -1) (i64.const 0)))
      (drop (i32.load (i32.const 0x20000)))
      (i32.store offset=8192 (i32.shl (i32.and (local.get 0) (i32.const 31)) (i32.const 11)) (local.get 0))
      (global.set $depth (local.get 0))
      (call $asking (i32.add (local.get 0) (i32.const 1)))
      (drop (call $getpid)))
    (func (export "depth") (result i32) (global.get $depth))"#;

#[test]
fn a_stack_that_ends_is_a_trap() {
    beside_a_witness(&console(DEEP), |guest| {
        for _ in 0..3 {
            for name in ["forever", "begin wide"] {
                let trap = guest.trap(name, &[]);
                assert_eq!((trap.kind.clone(), trap.signal()), (TrapKind::StackOverflow, libc::SIGSEGV), "{trap}");
                assert_eq!(trap.address, None);
            }
        }
    });
}

#[test]
fn calls_and_faults_are_served_however_deep_the_stack_is() {
    beside_a_witness(&console(DEEP), |guest| {
        guest.map(0x2_0000, 1, 3);
        let trap = guest.trap("asking", &[0]);
        assert_eq!(trap.kind, TrapKind::StackOverflow, "{trap}");
        assert!(guest.int("depth", &[]) > 100);
    });
}

#[test]
fn modules_that_end_before_they_begin_are_refused() {
    let cages = cages();
    let start = |text: &str| {
        let program = cages.load(text.as_bytes(), "hostile")?;
        cages.start(&program, Setup::default())
    };
    let traps = "(module (memory 1) (start $s) (func $s (drop (i32.load (i32.const 0)))))";
    assert!(matches!(start(traps), Err(CageError::Start(_))));
    let exits = r#"(module (import "pagewarden" "exit" (func $exit (param i32))) (memory 1) (start $s)
        (func $s (call $exit (i32.const 1))))"#;
    assert!(matches!(start(exits), Err(CageError::Start(_))));
    let outside = "(module (memory 1) (table 1 funcref) (elem (i32.const 1) func $f) (func $f))";
    assert!(matches!(start(outside), Err(CageError::Wasmtime { .. })));
    for large in ["(module (memory 65536))", "(module (memory 2000))"] {
        assert!(matches!(start(large), Err(CageError::Refused { .. })), "there is no memory for {large}");
    }
    for tables in ["(table 10000000 funcref)".into(), "(table 1 funcref)".repeat(90)] {
        assert!(matches!(start(&format!("(module (memory 1) {tables})")), Err(CageError::Wasmtime { .. })));
    }
    let unknown = r#"(module (import "env" "unknown" (func)) (memory 1))"#;
    assert!(matches!(start(unknown), Err(CageError::Wasmtime { .. })));
    let ill_typed = r#"(module (import "pagewarden" "mmap" (func (param i64))) (memory 1))"#;
    assert!(matches!(start(ill_typed), Err(CageError::Wasmtime { .. })));
    assert_eq!(cages.processes(), 0);
    assert_eq!(cages.memory().usage().mappings, 0);
}

#[test]
fn a_memory_without_pages_is_all_holes() {
    let text = r#"(module (memory (export "m") 0 65536)
        (func (export "load") (param i32) (drop (i32.load (local.get 0))))
        (func (export "size") (result i32) (memory.size))
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#;
    beside_a_witness(text, |guest: &mut Guest| {
        assert_eq!(guest.int("size", &[]), 0);
        for at in [0, 4096, 65_536, u32::MAX] {
            assert_eq!(guest.trap("load", &[at]).kind, TrapKind::Hole);
        }
        assert_eq!(guest.int("grow", &[65_536]), -1);
        assert_eq!(guest.int("grow", &[1]), 0);
        assert!(guest.call("load", &[4096]).is_ok_and(|results: Vec<Val>| results.is_empty()));
        assert_eq!(guest.trap("load", &[0]).address, Some(0), "NULL is never mapped");
    });
}
