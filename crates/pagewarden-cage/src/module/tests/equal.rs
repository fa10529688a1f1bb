//! A prepared module does what the module does: results, traps, and every byte of memory.

use wasmtime::{Engine, Linker, Module, Store, Trap, WasmBacktrace};

use super::Numbers;
use super::stock::{self, Seen};

/// What a module does, if both do the same. `calls` are names of functions, in order.
fn both(text: &str, calls: &str) -> Seen {
    let engine = Engine::default();
    let wasm = wat::parse_str(text).expect("the text is a module's");
    let calls: Vec<&str> = calls.split_whitespace().collect();
    let original = stock::original(&engine, &wasm, &calls);
    let prepared = stock::prepared(&engine, &wasm, &calls);
    assert_eq!(prepared.results, original.results);
    assert_eq!(prepared.told, original.told);
    assert!(prepared.memory == original.memory, "memories of {text} differ");
    original
}

/// The same for one function with this body.
fn body(code: &str) -> Seen {
    let text = format!(
        r#"(module (import "env" "tell" (func $tell (param i32)))
            (memory (export "memory") 1 3)
            (data (i32.const 4096) "0123456789")
            (data $passive "abcdefgh")
            (data $active (i32.const 60000) "active")
            (func (export "f") {code}))"#
    );
    both(&text, "f f")
}

const OUT: &str = "wasm trap: out of bounds memory access";

#[test]
fn size_and_growth() {
    let seen = body(
        "(call $tell (memory.size))
         (call $tell (memory.grow (i32.const 0)))
         (call $tell (memory.grow (i32.const 1)))
         (call $tell (memory.size))
         (call $tell (memory.grow (i32.const 2)))
         (call $tell (memory.grow (i32.const -1)))
         (call $tell (memory.size))",
    );
    assert_eq!(seen.told, [1, 1, 1, 2, -1, -1, 2, 2, 2, 2, 3, -1, -1, 3]);
    assert_eq!(seen.memory.len(), 3 << 16);
}

#[test]
fn copies() {
    let copy = |to: u32, from: u32, bytes: u32| {
        body(&format!("(memory.copy (i32.const {to}) (i32.const {from}) (i32.const {bytes}))"))
    };
    assert_eq!(&copy(5000, 4096, 10).memory[5000..5010], b"0123456789");
    assert_eq!(&copy(4097, 4096, 5).memory[4096..4106], b"0001236789");
    assert_eq!(&copy(4096, 4097, 5).memory[4096..4106], b"2345556789");
    for (to, from, bytes) in [(65_536, 0, 0), (0, 65_536, 0), (65_526, 4096, 10), (4096, 65_535, 1)] {
        assert_eq!(copy(to, from, bytes).results, ["[]", "[]"]);
    }
    for (to, from, bytes) in
        [(65_537, 0, 0), (0, 65_537, 0), (65_527, 4096, 10), (0, 1, 65_536), (4096, 4096, u32::MAX)]
    {
        assert_eq!(copy(to, from, bytes).results, [OUT, OUT]);
    }
}

#[test]
fn fills() {
    let fill = |to: u32, byte: u32, bytes: u32| {
        body(&format!("(memory.fill (i32.const {to}) (i32.const {byte}) (i32.const {bytes}))"))
    };
    assert_eq!(&fill(4097, 0x141, 3).memory[4096..4101], b"0AAA4");
    assert_eq!(fill(65_536, 1, 0).results, ["[]", "[]"]);
    assert_eq!(fill(0, 7, 65_536).memory, [7; 65_536]);
    for (to, bytes) in [(65_537, 0), (65_535, 2), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(fill(to, 1, bytes).results, [OUT, OUT]);
    }
}

#[test]
fn copies_from_segments() {
    let init = |segment: &str, to: u32, from: u32, bytes: u32| {
        body(&format!("(memory.init ${segment} (i32.const {to}) (i32.const {from}) (i32.const {bytes}))"))
    };
    assert_eq!(&init("passive", 4098, 3, 4).memory[4096..4106], b"01defg6789");
    assert_eq!(init("passive", 65_528, 0, 8).results, ["[]", "[]"]);
    assert_eq!(init("passive", 65_536, 8, 0).results, ["[]", "[]"]);
    assert_eq!(init("active", 4096, 0, 0).results, ["[]", "[]"]);
    for (to, from, bytes) in
        [(4096, 1, 8), (4096, 9, 0), (65_529, 0, 8), (65_537, 0, 0), (4096, u32::MAX, 2), (4096, 0, u32::MAX)]
    {
        assert_eq!(init("passive", to, from, bytes).results, [OUT, OUT]);
    }
    assert_eq!(init("active", 4096, 0, 1).results, [OUT, OUT]);
}

#[test]
fn dropped_segments() {
    let seen = body(
        "(memory.init $passive (i32.const 4096) (i32.const 0) (i32.const 2))
         (data.drop $passive) (data.drop $passive) (data.drop $active)
         (memory.init $passive (i32.const 4096) (i32.const 0) (i32.const 0))",
    );
    assert_eq!(seen.results, ["[]", OUT]);
    assert_eq!(&seen.memory[4096..4100], b"ab23");
}

#[test]
fn instructions_in_branches_and_loops() {
    let seen = body(
        "(local $i i32)
         (loop $again
           (if (i32.gt_u (memory.size) (local.get $i))
             (then (memory.fill (i32.add (i32.const 5000) (local.get $i)) (memory.size) (i32.const 1))
                   (drop (memory.grow (i32.const 1))))
             (else (memory.copy (i32.const 6000) (i32.const 5000) (i32.const 8))))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))",
    );
    assert_eq!(&seen.memory[6000..6004], [3, 3, 3, 0]);
}

/// Every way to name a function, and as many imports in front of them as there can be.
#[test]
fn functions_keep_their_callers() {
    let seen = both(
        r#"(module
            (import "env" "tell" (func $tell (param i32)))
            (memory (export "memory") 1)
            (type $number (func (result i32)))
            (table $t 8 funcref)
            (elem (i32.const 0) func $one $two)
            (elem (table $t) (i32.const 2) funcref (ref.func $three) (ref.null func))
            (elem $late func $two $three)
            (elem declare func $four)
            (global $g (mut funcref) (ref.func $five))
            (func $one (type $number) (i32.const 1))
            (func $two (type $number) (i32.const 2))
            (func $three (type $number) (i32.const 3))
            (func $four (type $number) (i32.const 4))
            (func $five (type $number) (i32.const 5))
            (func $ask (param i32) (result i32) (return_call_indirect (type $number) (local.get 0)))
            (func $begin (call $tell (i32.const 77)))
            (start $begin)
            (func (export "ranges")
              (data.drop $p)
              (memory.init $p (i32.const 0) (i32.const 0) (i32.const 0))
              (memory.copy (i32.const 0) (memory.grow (i32.const 0)) (memory.size))
              (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))
            (data $p "x")
            (func (export "all")
              (call $tell (call $ask (i32.const 0)))
              (call $tell (call $ask (i32.const 1)))
              (call $tell (call $ask (i32.const 2)))
              (table.init $late (i32.const 4) (i32.const 0) (i32.const 2))
              (table.copy (i32.const 0) (i32.const 4) (i32.const 1))
              (table.set (i32.const 6) (ref.func $four))
              (table.set (i32.const 7) (global.get $g))
              (call $tell (call $ask (i32.const 0)))
              (call $tell (call $ask (i32.const 5)))
              (call $tell (call $ask (i32.const 6)))
              (call $tell (call $ask (i32.const 7)))
              (call $tell (call $ask (i32.const 3))))
            (export "told" (func $tell)))"#,
        "all ranges all",
    );
    assert_eq!(seen.told, [77, 1, 2, 3, 2, 3, 4, 5, 2, 2, 3, 2, 3, 4, 5]);
    assert!(seen.results[0].contains("uninitialized element"), "{:?}", seen.results);
}

#[test]
fn data_that_overlaps_lies_as_it_did() {
    let text = r#"(module (memory (export "memory") 2)
        (data (i32.const 5000) "first")
        (data (i32.const 4998) "second")
        (data "passive")
        (data (offset (i32.mul (i32.const 5001) (i32.const 1))) "3")
        (data (i32.const 131071) "z")
        (data (i32.const 0) ""))"#;
    assert_eq!(&both(text, "").memory[4998..5006], b"sec3ndt\0");
}

#[test]
fn plain_loads_and_stores_are_left_alone() {
    let seen = body(
        "(i64.store offset=8 align=1 (i32.const 5001) (i64.const 0x0102030405060708))
         (v128.store (i32.const 5100) (i8x16.splat (i32.const 9)))
         (f32.store (i32.const 5200) (f32.const nan:0x200001))
         (call $tell (i32.load16_s (i32.const 5009)))
         (v128.store8_lane offset=3 5 (i32.const 5300) (v128.load (i32.const 5100)))",
    );
    assert_eq!(seen.told, [0x0708, 0x0708]);
    assert_eq!(&seen.memory[5200..5204], 0x7fa0_0001u32.to_le_bytes());
}

#[test]
fn traps_name_the_functions_that_they_are_in() {
    let text = r#"(module $whole (memory 1)
        (func $inner (param $size i32) unreachable)
        (func $outer (export "f") (call $inner (memory.size))))"#;
    let engine = Engine::default();
    let prepared = super::prepare_text(text).expect("it can be prepared");
    let module = Module::new(&engine, prepared.wasm).expect("it compiles");
    assert_eq!(module.name(), Some("whole"));
    let mut linker = Linker::new(&engine);
    let mut store = Store::new(&engine, ());
    linker.define_unknown_imports_as_default_values(&mut store, &module).expect("functions have such");
    let instance = linker.instantiate(&mut store, &module).expect("nothing runs");
    let function = instance.get_typed_func::<(), ()>(&mut store, "f").expect("it is exported");
    let error = function.call(&mut store, ()).expect_err("it traps");
    assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::UnreachableCodeReached));
    let frames = error.downcast_ref::<WasmBacktrace>().expect("there is one").frames();
    assert_eq!(frames.iter().map(|frame| frame.func_name()).collect::<Vec<_>>(), [Some("inner"), Some("outer")]);
}

/// An address or a length: near the ends of things more often than not.
fn place(numbers: &mut Numbers) -> usize {
    const NEAR: [usize; 6] = [0, 4096, 60_000, 65_536, 131_072, 0xffff_fff8];
    (NEAR[numbers.below(6)] + numbers.below(16)) & 0xffff_ffff
}

fn instruction(numbers: &mut Numbers) -> String {
    let segment = numbers.below(3);
    let [to, from] = [place(numbers), place(numbers)].map(|place| format!("(i32.const {place})"));
    let bytes = if numbers.below(4) == 0 { place(numbers) } else { numbers.below(40) };
    let bytes = format!("(i32.const {bytes})");
    let offset = numbers.below(12);
    match numbers.below(7) {
        0 | 1 => format!("(memory.copy {to} {from} {bytes})"),
        2 => format!("(memory.fill {to} {from} {bytes})"),
        3 => format!("(memory.init {segment} {to} (i32.const {offset}) {bytes})"),
        4 => format!("(call $tell (memory.grow (i32.const {})))", numbers.below(3)),
        5 if numbers.below(3) == 0 => format!("(data.drop {segment})"),
        _ => "(call $tell (memory.size))".to_owned(),
    }
}

#[test]
fn random_programs_do_the_same() {
    let mut numbers = Numbers(9);
    let mut trapped = 0;
    for _ in 0..60 {
        let functions: String = (0..8)
            .map(|index| {
                let code: String = (0..4).map(|_| instruction(&mut numbers)).collect();
                format!(r#"(func (export "f{index}") {code})"#)
            })
            .collect();
        let text = format!(
            r#"(module (import "env" "tell" (func $tell (param i32))) (memory (export "memory") 1 3)
                (data (i32.const 60000) "zero to nine") (data "passive one") (data "another") {functions})"#
        );
        let seen = both(&text, "f0 f1 f2 f3 f4 f5 f6 f7");
        trapped += seen.results.iter().filter(|result| result.as_str() == OUT).count();
    }
    assert!((100..400).contains(&trapped), "{trapped} of 480 calls trapped: too few or too many to say much");
}
