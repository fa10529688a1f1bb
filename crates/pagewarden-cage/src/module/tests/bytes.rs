//! Bytes that are nearly modules.

use wasmparser::{Parser, Validator};

use super::Numbers;
use crate::module::survey::FEATURES;
use crate::module::{ModuleError, prepare};

/// Modules to begin with: all kinds of sections, and all instructions that are changed.
const SEEDS: [&str; 4] = [
    r#"(module $m
        (import "env" "log" (func $log (param i32)))
        (memory 2 4) (table 3 funcref) (elem (i32.const 0) $f $log)
        (global $sp (mut i32) (i32.const 5))
        (data (i32.const 4096) "hello") (data $p "passive")
        (start $s) (func $s (local $x i64))
        (func $f (export "f") (result i32)
          (memory.init $p (i32.const 4096) (i32.const 0) (i32.const 7)) (data.drop $p)
          (memory.copy (i32.const 4096) (i32.const 5000) (i32.const 7))
          (memory.fill (i32.const 4096) (i32.const 5000) (i32.const 7))
          (call $log (memory.grow (i32.const 1))) (memory.size)))"#,
    r#"(module (memory (export "memory") 1) (type $t (func (result i32)))
        (table $a 2 funcref) (table $b 2 4 funcref) (elem $e func 0 1) (elem declare func 2)
        (global i32 (i32.const 1)) (global (mut funcref) (ref.func 1)) (global (mut v128) (v128.const i64x2 1 2))
        (func (type $t) (block (result i32) (i32.const 1) (br_table 0 0 0 (i32.const 2))))
        (func (type $t) (table.init $a $e (i32.const 0) (i32.const 0) (i32.const 2)) (elem.drop $e) (i32.const 1))
        (func (type $t) (return_call_indirect $a (type $t) (i32.const 0)))
        (func (param i32) (drop (select (result funcref) (ref.func 2) (ref.null func) (local.get 0)))
          (f32.store offset=9 (i32.const 1) (f32.const nan)) (drop (i32x4.extract_lane 1 (v128.load (i32.const 0))))))"#,
    r#"(module (memory 1) (data (offset (i32.add (i32.const 4096) (i32.const 1))) "x") (data "y") (data "z")
        (func (data.drop 1) (memory.init 2 (i32.const 0) (i32.const 0) (i32.const 1))))"#,
    r#"(module $names (memory $m 1) (func $a (param $p i32) (local $l i64) (block $label)) (global $g i32 (i32.const 0))
        (table $t 0 funcref) (data $d "x") (type $y (func)) (elem $e declare func $a))"#,
];

/// Changes a byte, or takes a piece out, doubles one, or cuts the end off.
fn mutate(wasm: &mut Vec<u8>, numbers: &mut Numbers) {
    const BYTES: [u8; 12] = [0, 1, 2, 0x40, 0x41, 0x7f, 0x80, 0xfc, 0xfd, 0xff, 0x0b, 0x70];
    let at = numbers.below(wasm.len());
    let end = (at + 1 + numbers.below(8)).min(wasm.len());
    match numbers.below(9) {
        0 => wasm[at] ^= 1 << numbers.below(8),
        1 | 2 => wasm[at] = BYTES[numbers.below(BYTES.len())],
        3 => wasm[at] = wasm[at].wrapping_add(1),
        4 => wasm[at] = wasm[at].wrapping_sub(1),
        5 => drop(wasm.drain(at..end)),
        6 => {
            let piece = wasm[at..end].to_vec();
            wasm.splice(at..at, piece);
        }
        7 => wasm.insert(at, BYTES[numbers.below(BYTES.len())]),
        _ if numbers.below(8) == 0 => wasm.truncate(at),
        _ => wasm[at] = u8::try_from(numbers.below(256)).unwrap_or(0),
    }
    if wasm.is_empty() {
        wasm.push(0);
    }
}

/// Whether the bytes were a module that could be prepared. What was prepared is valid; what is valid is never refused as if
/// it were not.
fn check(wasm: &[u8]) -> bool {
    match prepare(wasm) {
        Ok(prepared) => {
            let checked = Validator::new_with_features(FEATURES).validate_all(&prepared.wasm);
            checked.unwrap_or_else(|error| panic!("{error} in what was prepared from {wasm:02x?}"));
            let memory = prepared.memory;
            for segment in prepared.active {
                assert!(segment.offset >= 4096 && !segment.bytes.is_empty());
                assert!(u64::from(segment.offset) + segment.bytes.len() as u64 <= memory.initial_bytes);
            }
            true
        }
        Err(ModuleError::Invalid(why)) => {
            let valid = Validator::new_with_features(FEATURES).validate_all(wasm);
            assert!(valid.is_err(), "refused for {why}, but valid: {wasm:02x?}");
            false
        }
        Err(_) => false,
    }
}

#[test]
fn any_bytes_are_refused_or_become_a_valid_module() {
    let mut numbers = Numbers(1);
    for seed in SEEDS {
        let seed = wat::parse_str(seed).expect("the text is a module's");
        assert!(check(&seed));
        let mut prepared = 0;
        for _ in 0..5_000 {
            let mut wasm = seed.clone();
            for _ in 0..=numbers.below(3) {
                mutate(&mut wasm, &mut numbers);
            }
            prepared += u32::from(check(&wasm));
        }
        assert!(prepared > 100, "only {prepared} of 5000 could be prepared, which says little about the result");
    }
}

#[test]
fn a_prefix_is_a_module_only_where_a_section_ends() {
    for seed in SEEDS {
        let seed = wat::parse_str(seed).expect("the text is a module's");
        let payloads = Parser::new(0).parse_all(&seed).map(|payload| payload.expect("it is valid"));
        let ends: Vec<usize> = payloads.filter_map(|payload| Some(payload.as_section()?.1.end)).collect();
        let complete: Vec<usize> = (0..seed.len()).filter(|end| check(&seed[..*end])).collect();
        assert!(complete.iter().all(|end| ends.contains(end)), "{complete:?} but {ends:?}");
        assert!(complete.len() < ends.len(), "a module without its functions' bodies is none");
    }
}
