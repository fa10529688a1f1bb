//! Modules that nobody wrote: bytes of real ones, changed, and what is still a module run.

use pagewarden_cage::{CageError, Cages, Ended, Program, Setup, Val};
use wasmparser::{Operator, Parser, Payload, TypeRef};

use crate::support::{Numbers, Witness, cages, caller, wait_for_ends};

/// Code without loops, which calls nothing but the host: whatever it becomes, it soon ends.
const SEEDS: [&str; 3] = [
    r#"(global $g (mut i32) (i32.const 77))
    (func (export "f") (param i32) (result i32)
      (i32.store (i32.const 5000) (i32.add (local.get 0) (i32.load offset=16 (i32.const 5004))))
      (memory.copy (i32.const 5000) (i32.const 9000) (i32.const 300))
      (memory.fill (i32.const 6000) (local.get 0) (i32.const 5000))
      (drop (call $mmap (i32.const 0) (i32.const 8192) (i32.const 3) (i32.const 0x22) (i32.const -1) (i64.const 0)))
      (drop (call $mprotect (i32.const 0x10000) (i32.const 8192) (i32.const 1)))
      (drop (call $munmap (i32.const 0x10000) (i32.const 4096)))
      (i64.store offset=8 (local.get 0) (i64.load (i32.const 0x11000)))
      (global.set $g (i32.mul (global.get $g) (local.get 0)))
      (i32.load (global.get $g)))"#,
    r#"(table 4 funcref) (elem (i32.const 0) func $child)
    (data (i32.const 4096) "data at the beginning")
    (func $child (param i32) (result i32) (i32.store8 (i32.const 4099) (local.get 0)) (i32.load8_u (i32.const 4099)))
    (func (export "f") (param i32) (result i32)
      (drop (call $clone (i32.const 0) (local.get 0)))
      (drop (call $waitpid (i32.const -1) (i32.const 4100) (i32.const 0)))
      (drop (call $sbrk (i32.const 4096)))
      (drop (call $shmat (call $shmget (i32.const 0) (i32.const 4096) (i32.const 0x380)) (i32.const 0) (i32.const 0)))
      (drop (call $mremap (i32.const 0x10000) (i32.const 4096) (i32.const 8192) (i32.const 1) (i32.const 0)))
      (v128.store (i32.const 0x1fff0) (v128.load (i32.const 4096)))
      (drop (memory.grow (i32.const 1)))
      (i32.load16_u (i32.const 4100)))"#,
    r#"(table $t 3 8 funcref) (elem $e func $leaf $leaf) (data $d "some bytes")
    (func $leaf (param i32) (result i32) (local.get 0))
    (func (export "f") (param i32) (result i32)
      (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2))
      (drop (table.grow $t (ref.func $leaf) (i32.const 2)))
      (table.copy $t $t (i32.const 1) (i32.const 0) (i32.const 2))
      (memory.init $d (i32.const 4096) (i32.const 2) (i32.const 6))
      (data.drop $d)
      (drop (call $madvise (i32.const 0x1000) (i32.const 0x3000) (i32.const 4)))
      (drop (call $syscall (i64.const 27) (i64.const 0x1000) (i64.const 0x3000) (i64.const 0x5000) (i64.const 0) (i64.const 0) (i64.const 0)))
      (i32.div_u (i32.load (i32.const 4096)) (block (result i32) (br_if 0 (i32.const 1) (local.get 0)))))"#,
];

/// How many modules are tried, for each seed.
const TRIED: usize = 500;

fn mutate(wasm: &mut Vec<u8>, numbers: &mut Numbers) {
    const BYTES: [u8; 14] = [0, 1, 2, 0x10, 0x1a, 0x20, 0x28, 0x36, 0x41, 0x7f, 0x80, 0xfc, 0xfd, 0xff];
    // Most of a module is names and types; what is worth changing is rather behind.
    let early = numbers.below(wasm.len());
    let late = wasm.len() * 2 / 3 + numbers.below(wasm.len() / 3);
    let at = numbers.one_of(&[early, late, late]);
    match numbers.below(8) {
        0 => wasm[at] ^= 1 << numbers.below(8),
        1 => wasm[at] = wasm[at].wrapping_add(1),
        2 => wasm[at] = wasm[at].wrapping_sub(1),
        3 => drop(wasm.remove(at)),
        4 => wasm.insert(at, numbers.one_of(&BYTES)),
        5 => wasm[at] = u8::try_from(numbers.below(256)).unwrap(),
        _ => wasm[at] = numbers.one_of(&BYTES),
    }
}

/// Whether all of its code ends by itself: no loops, and no calls but of imports.
fn ends(wasm: &[u8]) -> bool {
    let mut imported = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::ImportSection(section)) => {
                let functions = section
                    .into_imports()
                    .filter(|import| matches!(import, Ok(import) if matches!(import.ty, TypeRef::Func(_))));
                imported = u32::try_from(functions.count()).unwrap();
            }
            Ok(Payload::CodeSectionEntry(body)) => {
                let Ok(operators) = body.get_operators_reader() else { return false };
                for operator in operators {
                    match operator {
                        Ok(Operator::Call { function_index } | Operator::ReturnCall { function_index })
                            if function_index < imported => {}
                        Ok(
                            Operator::Loop { .. }
                            | Operator::Call { .. }
                            | Operator::ReturnCall { .. }
                            | Operator::CallIndirect { .. }
                            | Operator::ReturnCallIndirect { .. },
                        )
                        | Err(_) => return false,
                        Ok(_) => {}
                    }
                }
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}

#[derive(Default, Debug)]
struct Counts {
    refused: u32,
    not_started: u32,
    returned: u32,
    trapped: u32,
    other: u32,
}

fn run(cages: &Cages, program: &Program, counts: &mut Counts) {
    let mut cage = match cages.start(program, Setup::default()) {
        Ok(cage) => cage,
        Err(CageError::Wasmtime { .. } | CageError::Refused { .. } | CageError::Start(_)) => {
            counts.not_started += 1;
            return;
        }
        Err(other) => panic!("{other}"),
    };
    for argument in [0, 4096, -1] {
        match cage.call("f", &[Val::I32(argument)]) {
            Ok(_) => counts.returned += 1,
            Err(Ended::Trap(trap)) => {
                assert!(trap.signal() > 0 && !trap.to_string().is_empty());
                counts.trapped += 1;
            }
            Err(Ended::Exit(_) | Ended::NotCalled(_)) => counts.other += 1,
        }
        cage.space().space().with_manager(|manager| manager.check_invariants());
    }
}

#[test]
fn changed_modules_are_refused_or_trap_or_return() {
    let cages = cages();
    let witness = Witness::of(&cages);
    let mut numbers = Numbers(31);
    let mut counts = Counts::default();
    for seed in SEEDS {
        let seed = wat::parse_str(caller(seed)).unwrap();
        assert!(ends(&seed));
        for _ in 0..TRIED {
            let mut wasm = seed.clone();
            for _ in 0..=numbers.below(2) {
                mutate(&mut wasm, &mut numbers);
            }
            if !ends(&wasm) {
                counts.refused += u32::from(cages.load(&wasm, "mutant").is_err());
                continue;
            }
            match cages.load(&wasm, "mutant") {
                Ok(program) => run(&cages, &program, &mut counts),
                Err(_) => counts.refused += 1,
            }
        }
    }
    assert!(counts.refused > 200 && counts.returned > 200 && counts.trapped > 200, "{counts:?}");
    witness.dismiss();
    wait_for_ends(&cages, 0);
    assert_eq!(cages.memory().usage().mappings, 0, "somebody's memory is still shown");
}
