//! What is in a module before and after.

use wasmparser::{Operator, Parser, Payload, TypeRef, Validator};

use super::prepare_text;
use crate::module::survey::FEATURES;
use crate::module::{ActiveSegment, MemoryLimits, Prepared};

fn prepared(text: &str) -> Prepared {
    let prepared = prepare_text(text).expect("it can be prepared");
    Validator::new_with_features(FEATURES).validate_all(&prepared.wasm).expect("what is prepared is valid");
    prepared
}

fn payloads(wasm: &[u8]) -> Vec<Payload<'_>> {
    Parser::new(0).parse_all(wasm).collect::<Result<_, _>>().expect("it is valid")
}

/// Modules, names and types of the imports.
fn imports(wasm: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in payloads(wasm) {
        if let Payload::ImportSection(section) = payload {
            for import in section.into_imports() {
                let import = import.expect("it is valid");
                assert!(matches!(import.ty, TypeRef::Func(_)));
                names.push(format!("{} {}", import.module, import.name));
            }
        }
    }
    names
}

fn exports(wasm: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in payloads(wasm) {
        if let Payload::ExportSection(section) = payload {
            names.extend(section.into_iter().map(|export| export.expect("it is valid").name.to_owned()));
        }
    }
    names
}

const ALL: &str = r#"(module $whole
    (import "env" "log" (func $log (param i32)))
    (import "env" "constant" (global i32))
    (memory 2 4)
    (table $t 3 funcref)
    (table $u 1 funcref)
    (elem (table $t) (i32.const 0) func $f $log)
    (elem declare func $declared)
    (elem $late funcref (ref.null func) (ref.func $expressed))
    (global $fixed i32 (i32.const 1))
    (global $stack (mut i32) (i32.const 5))
    (global $handler (mut funcref) (ref.func $handled))
    (data (i32.const 4096) "hello")
    (data $passive "passive")
    (data (offset (i32.add (i32.const 4096) (i32.mul (i32.const 2) (i32.sub (i32.const 5) (i32.const 4))))) "LLO")
    (start $s)
    (func $s)
    (func $never)
    (func $declared)
    (func $handled)
    (func $expressed)
    (func $f (export "f") (result i32)
      (drop (ref.func $declared))
      (memory.init $passive (i32.const 4096) (i32.const 0) (i32.const 7))
      (data.drop $passive)
      (memory.copy (i32.const 4096) (i32.const 5000) (i32.const 7))
      (memory.fill (i32.const 4096) (i32.const 0) (i32.const 7))
      (call $log (memory.grow (i32.const 1)))
      (memory.size)))"#;

#[test]
fn data_is_taken_out() {
    let prepared = prepared(ALL);
    let active = |offset, bytes: &[u8]| ActiveSegment { offset, bytes: bytes.to_vec() };
    assert_eq!(prepared.active, [active(4096, b"hello"), active(4098, b"LLO")]);
    assert_eq!(prepared.segments, [None, Some(b"passive".to_vec()), None]);
    for payload in payloads(&prepared.wasm) {
        assert!(!matches!(payload, Payload::DataSection(_) | Payload::DataCountSection { .. }));
    }
}

#[test]
fn the_memory_becomes_all_of_a_cage() {
    let whole = prepared(ALL);
    assert_eq!(whole.memory, MemoryLimits { initial_bytes: 2 << 16, maximum_bytes: Some(4 << 16) });
    let without_maximum = prepared("(module (memory 0))").memory;
    assert_eq!(without_maximum, MemoryLimits { initial_bytes: 0, maximum_bytes: None });
    assert_eq!(prepared("(module (memory 65536))").memory.initial_bytes, 1 << 32);
    let mut memories = Vec::new();
    for payload in payloads(&whole.wasm) {
        if let Payload::MemorySection(section) = payload {
            memories.extend(section.into_iter().map(|memory| memory.expect("it is valid")));
        }
    }
    assert!(matches!(memories[..], [memory] if memory.initial == 65_536 && memory.maximum == Some(65_536)));
}

#[test]
fn no_instruction_is_left_that_the_runtime_would_carry_out() {
    for payload in payloads(&prepared(ALL).wasm) {
        let Payload::CodeSectionEntry(body) = payload else { continue };
        for operator in body.get_operators_reader().expect("it is valid") {
            let operator = operator.expect("it is valid");
            assert!(!format!("{operator:?}").starts_with("Memory"), "{operator:?}");
            assert!(!matches!(operator, Operator::DataDrop { .. }));
        }
    }
}

#[test]
fn only_imports_that_are_used_are_added_behind_the_own_ones() {
    let module = |name: &str| format!("pagewarden:memory {name}");
    let added = ["size", "grow", "copy", "fill", "init", "drop"].map(module);
    let mut all = vec!["env log".to_owned(), "env constant".to_owned()];
    all.extend(added);
    let functions_only = ALL.replace("(import \"env\" \"constant\" (global i32))", "");
    all.remove(1);
    assert_eq!(imports(&prepared(&functions_only).wasm), all);
    let code = |body: &str| imports(&prepared(&format!("(module (memory 1) (func {body}))")).wasm);
    assert_eq!(code(""), Vec::<String>::new());
    assert_eq!(code("(drop (memory.size))"), [module("size")]);
    assert_eq!(code("(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))"), [module("fill")]);
}

#[test]
fn what_a_fork_carries_over_is_exported() {
    let prepared = prepared(ALL);
    let names = &prepared.names;
    assert_eq!(names.memory, "pagewarden:memory");
    assert_eq!(names.start.as_deref(), Some("pagewarden:start"));
    assert_eq!(names.globals, ["pagewarden:global:2", "pagewarden:global:3"]);
    assert_eq!(names.tables, ["pagewarden:table:0", "pagewarden:table:1"]);
    // By index in the module as it was: the import, and all but $s and $never.
    assert_eq!(names.functions, [0, 3, 4, 5, 6].map(|index| format!("pagewarden:function:{index}")));
    let mut all = vec!["f".to_owned(), names.memory.clone()];
    all.extend(names.globals.iter().chain(&names.tables).chain(&names.start).chain(&names.functions).cloned());
    assert_eq!(exports(&prepared.wasm), all);
    let payloads = payloads(&prepared.wasm);
    assert!(!payloads.iter().any(|payload| matches!(payload, Payload::StartSection { .. })));
}

#[test]
fn a_start_function_that_is_imported_can_be_called_too() {
    let text = r#"(module (import "env" "begin" (func $begin)) (memory 1) (start $begin))"#;
    assert_eq!(prepared(text).names.start.as_deref(), Some("pagewarden:start"));
    assert_eq!(prepared("(module (memory 1))").names.start, None);
}

#[test]
fn of_other_tools_sections_only_names_stay() {
    let text = r#"(module (memory 1) (@custom ".debug_line" "offsets") (@custom "name" "\00\ff") (func $f))"#;
    let mut sections = Vec::new();
    for payload in payloads(&prepared(text).wasm) {
        if let Payload::CustomSection(section) = payload {
            sections.push(section.name().to_owned());
        }
    }
    assert_eq!(sections, ["name"]);
}

#[test]
fn broken_names_do_not_matter() {
    for names in
        [r"\00", r"\01\7f", r"\01\ff\ff\ff\ff\0f", r"\01\08\01\ff\ff\ff\ff\0f\01x", r"\01\04\01\00\01\ff", r"\7f\01x"]
    {
        let text =
            format!(r#"(module (memory 1) (@custom "name" (after code) "{names}") (func (drop (memory.size))))"#);
        prepared(&text);
    }
}
