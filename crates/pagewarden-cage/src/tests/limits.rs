//! Budgets, stacks, tables, and what is left of cages that are gone.

use pagewarden::Resource;

use super::{cages, cages_with, call, map, program, program_with, start, trap};
use crate::{CageError, CageOptions, TrapKind};

const ENOMEM: i32 = -12;
const MIB: i32 = 1 << 20;

const DEEP: &str = r#"
    (table $table 1 funcref)
    (func $deeper (export "deeper") (param i32) (result i32)
        (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 0))
            (else (i32.add (i32.const 1) (call $deeper (i32.sub (local.get 0) (i32.const 1)))))))
    (func (export "grow_table") (param i32) (result i32) (table.grow $table (ref.null func) (local.get 0)))
"#;

#[test]
fn a_cage_over_its_budget_gets_enomem_and_goes_on() {
    let cages = cages_with(CageOptions { process_commit_limit: Some(2 << 20), ..CageOptions::default() });
    let mut cage = start(&cages, &program(&cages, DEEP));
    assert_eq!(call(&mut cage, "mmap", &[0, 2 * MIB, 3, 0x22]), ENOMEM, "with what the program has it is too much");
    let address = map(&mut cage, MIB);
    call(&mut cage, "store", &[address, 1]);
    assert_eq!(call(&mut cage, "sbrk", &[MIB]), ENOMEM);
    assert_eq!(call(&mut cage, "mmap", &[0, 64 * MIB, 0, 0x22]).cast_unsigned() % 4096, 0, "reserved alone");
    assert_eq!(call(&mut cage, "munmap", &[address, MIB]), 0);
    map(&mut cage, MIB);
    let mut other = start(&cages, &program(&cages, DEEP));
    map(&mut other, MIB);
}

#[test]
fn all_cages_together_stay_within_the_budget_of_the_tree() {
    let cages = cages_with(CageOptions {
        commit_limit: Some(3 << 20),
        reserve_limit: Some(16 << 20),
        ..CageOptions::default()
    });
    let program = program(&cages, DEEP);
    let (mut a, mut b) = (start(&cages, &program), start(&cages, &program));
    map(&mut a, 2 * MIB);
    assert_eq!(call(&mut b, "mmap", &[0, MIB, 3, 0x22]), ENOMEM);
    assert!(matches!(a.fork(), Err(CageError::Refused { refusal, .. }) if refusal.errno.raw() == 12));
    assert_eq!(call(&mut b, "mmap", &[0, 15 * MIB, 0, 0x22]), ENOMEM, "no more addresses");
    drop(a);
    map(&mut b, 2 * MIB);
    assert!(b.account().used(Resource::Committed) >= 512);
}

#[test]
fn a_deep_recursion_is_a_trap_on_any_thread() {
    let cages = cages_with(CageOptions { stack_bytes: 8 << 20, ..CageOptions::default() });
    let mut cage = start(&cages, &program(&cages, DEEP));
    assert_eq!(call(&mut cage, "deeper", &[20_000]), 20_000, "more than this thread's stack holds");
    assert_eq!(trap(&mut cage, "deeper", &[-1]).kind, TrapKind::StackOverflow);
    assert_eq!(call(&mut cage, "deeper", &[10]), 10);
    assert!(matches!(
        crate::Cages::new(&CageOptions { stack_bytes: 1, ..CageOptions::default() }),
        Err(CageError::Options(_))
    ));
}

#[test]
fn a_table_does_not_grow_beyond_what_the_host_gives() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, DEEP));
    assert_eq!(call(&mut cage, "grow_table", &[1000]), 1);
    assert_eq!(call(&mut cage, "grow_table", &[1 << 28]), -1);
    assert_eq!(call(&mut cage, "grow_table", &[1]), 1001);
}

#[test]
fn two_cages_have_nothing_in_common_but_what_they_share() {
    let cages = cages();
    let data = r#"(data (i32.const 65536) "data") (data (i32.const 200000) "more")"#;
    let program = program_with(&cages, "(memory 4)", &format!("{DEEP} {data}"));
    let (mut a, mut b) = (start(&cages, &program), start(&cages, &program));
    let (at_a, at_b) = (map(&mut a, 4096), map(&mut b, 4096));
    assert_eq!(at_a, at_b, "the same addresses");
    call(&mut a, "store", &[at_a, 1]);
    call(&mut a, "store", &[65536, 2]);
    assert_eq!(call(&mut a, "load", &[200_000]), i32::from_le_bytes(*b"more"));
    assert_eq!((call(&mut b, "load", &[at_b]), call(&mut b, "load", &[65536])), (0, i32::from_le_bytes(*b"data")));
    trap(&mut a, "load", &[0]);
    assert_eq!(call(&mut b, "load", &[at_b]), 0);
    let mut c = start(&cages, &program);
    assert_eq!(call(&mut c, "load", &[65536]), i32::from_le_bytes(*b"data"), "the image is as it was");
}
