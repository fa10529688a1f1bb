//! Modules that no cage can run, and what their authors are told.

use super::prepare_text;
use crate::module::{ModuleError, prepare};

fn refusal(text: &str) -> ModuleError {
    prepare_text(text).expect_err("it is refused")
}

/// What is refused as no module, in the validator's words.
fn invalid(text: &str) -> String {
    match refusal(text) {
        ModuleError::Invalid(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_module_without_memory_is_refused() {
    assert_eq!(refusal("(module)"), ModuleError::NoMemory);
}

#[test]
fn a_memory_that_is_not_one_own_plain_one_is_refused() {
    assert_eq!(refusal(r#"(module (import "env" "memory" (memory 1)))"#), ModuleError::ImportedMemory);
    assert_eq!(refusal("(module (memory 1 2 shared))"), ModuleError::SharedMemory);
    assert_eq!(refusal("(module (memory i64 1))"), ModuleError::Memory64);
    assert_eq!(refusal("(module (memory i64 1 2 shared))"), ModuleError::SharedMemory);
    assert_eq!(refusal("(module (memory 1) (memory 1))"), ModuleError::SeveralMemories(2));
    assert!(invalid("(module (memory 1 (pagesize 1)))").contains("custom page sizes"));
}

#[test]
fn what_is_shared_with_other_modules_is_refused() {
    let table = r#"(module (import "env" "t" (table 1 funcref)) (memory 1))"#;
    assert_eq!(refusal(table), ModuleError::ImportedTable("t".into()));
    let global = r#"(module (import "env" "g" (global (mut i32))) (memory 1))"#;
    assert_eq!(refusal(global), ModuleError::ImportedGlobal("g".into()));
    // Nobody can tell a constant from a copy of it; whether it is there is the linker's question.
    prepare_text(r#"(module (import "env" "g" (global i32)) (memory 1))"#).expect("a constant is no state");
}

#[test]
fn reserved_names_are_refused() {
    let export = r#"(module (memory (export "pagewarden:memory") 1))"#;
    assert_eq!(refusal(export), ModuleError::ReservedName("pagewarden:memory".into()));
    let import = r#"(module (import "pagewarden:memory" "copy" (func)) (memory 1))"#;
    assert_eq!(refusal(import), ModuleError::ReservedName("pagewarden:memory".into()));
    let near = r#"(module (import "pagewarden" "fork" (func)) (memory (export "pagewarden") 1))"#;
    prepare_text(near).expect("only what begins so is reserved");
}

#[test]
fn data_must_lie_between_the_null_page_and_the_initial_end() {
    assert_eq!(refusal(r#"(module (memory 1) (data (i32.const 4095) "x"))"#), ModuleError::LowData(4095));
    assert_eq!(refusal(r#"(module (memory 1) (data (i32.const 0) "x"))"#), ModuleError::LowData(0));
    let behind = |segment, end| ModuleError::DataOutside { segment, end, memory: 65_536 };
    assert_eq!(refusal(r#"(module (memory 1) (data (i32.const 65535) "xy"))"#), behind(0, 65_537));
    assert_eq!(refusal(r#"(module (memory 1) (data "p") (data (i32.const -1) "xy"))"#), behind(1, 0x1_0000_0001));
    assert_eq!(refusal(r#"(module (memory 1) (data (i32.const 65537) ""))"#), behind(0, 65_537));
    let fits =
        r#"(module (memory 1) (data (i32.const 4096) "x") (data (i32.const 65535) "y") (data (i32.const 0) ""))"#;
    prepare_text(fits).expect("both ends are inclusive, and nothing is nowhere");
}

#[test]
fn data_at_an_address_that_is_not_constant_is_refused() {
    let text = r#"(module (import "env" "base" (global $base i32)) (memory 1)
        (data "p") (data (global.get $base) "x"))"#;
    assert_eq!(refusal(text), ModuleError::DataOffset(1));
}

#[test]
fn what_cages_do_not_have_is_refused_in_words() {
    let body = |code: &str| invalid(&format!("(module (memory 1) (func {code}))"));
    assert!(body("(drop (memory.atomic.notify (i32.const 0) (i32.const 0)))").contains("threads"));
    assert!(body("(drop (i32.atomic.load (i32.const 0)))").contains("threads"));
    assert!(body("(drop (ref.null extern))").contains("gc types"));
    assert!(invalid("(module (memory 1) (tag))").contains("exceptions"));
    let relaxed = "(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))";
    assert!(body(relaxed).contains("relaxed"));
}

#[test]
fn an_import_of_an_exact_type_is_refused() {
    let mut wasm = wat::parse_str(r#"(module (import "env" "f" (func)) (memory 1))"#).expect("a module's text");
    let kind = 2 + wasm.windows(2).position(|bytes| bytes == b"\x01f").expect("the import's name");
    wasm[kind] = 0x20;
    assert_eq!(prepare(&wasm), Err(ModuleError::ExactImport("f".into())));
}

#[test]
fn what_is_no_module_is_refused() {
    assert_eq!(prepare(&wat::parse_str("(component)").expect("a component's text")), Err(ModuleError::Component));
    for bytes in [&b""[..], b"\0asm", b"\0asm\x02\0\0\0", b"(module)", &[0xff; 64]] {
        assert!(matches!(prepare(bytes), Err(ModuleError::Invalid(_))), "{bytes:?}");
    }
}

#[test]
fn what_is_valid_but_for_one_type_is_refused() {
    let mut wasm = wat::parse_str("(module (memory 1) (func (result i32) i32.const 0))").expect("a module's text");
    let constant = wasm.iter().rposition(|byte| *byte == 0x41).expect("the instruction");
    wasm[constant] = 0x42;
    assert!(matches!(prepare(&wasm), Err(ModuleError::Invalid(why)) if why.contains("type mismatch")));
}

#[test]
fn refusals_say_what_to_do() {
    let cures = [
        (ModuleError::NoMemory, "define one"),
        (ModuleError::ImportedMemory, "--import-memory"),
        (ModuleError::SharedMemory, "-pthread"),
        (ModuleError::LowData(1024), "0x400, and NULL is never mapped: link with -Wl,--global-base=65536"),
        (ModuleError::Memory64, "wasm32"),
    ];
    for (error, cure) in cures {
        assert!(error.to_string().contains(cure), "{error}");
    }
}
