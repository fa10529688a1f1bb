//! Whole processes, as an embedder sees them. Calls by name are tested beside them.

mod limits;
mod process;
mod traps;

use crate::{Cage, CageOptions, Cages, Ended, Program, Setup, Val};

/// Cages of a machine with 256 MiB.
pub(crate) fn cages() -> Cages {
    cages_with(CageOptions::default())
}

/// The same with other options.
pub(crate) fn cages_with(options: CageOptions) -> Cages {
    Cages::new(&CageOptions { memory_bytes: 256 << 20, ..options }).unwrap()
}

/// A program of a module with these parts, and a memory of two pages of 64 KiB.
pub(crate) fn program(cages: &Cages, parts: &str) -> Program {
    program_with(cages, "(memory 2)", parts)
}

/// The same with another memory. The calls that tests use are there by name.
pub(crate) fn program_with(cages: &Cages, memory: &str, parts: &str) -> Program {
    const IMPORTS: &str = r#"
        (import "pagewarden" "mmap" (func $mmap (param i32 i32 i32 i32 i32 i64) (result i32)))
        (import "pagewarden" "munmap" (func $munmap (param i32 i32) (result i32)))
        (import "pagewarden" "mprotect" (func $mprotect (param i32 i32 i32) (result i32)))
        (import "pagewarden" "mremap" (func $mremap (param i32 i32 i32 i32 i32) (result i32)))
        (import "pagewarden" "madvise" (func $madvise (param i32 i32 i32) (result i32)))
        (import "pagewarden" "msync" (func $msync (param i32 i32 i32) (result i32)))
        (import "pagewarden" "brk" (func $brk (param i32) (result i32)))
        (import "pagewarden" "sbrk" (func $sbrk (param i32) (result i32)))
        (import "pagewarden" "shmget" (func $shmget (param i32 i32 i32) (result i32)))
        (import "pagewarden" "shmat" (func $shmat (param i32 i32 i32) (result i32)))
        (import "pagewarden" "shmdt" (func $shmdt (param i32) (result i32)))
        (import "pagewarden" "shmctl" (func $shmctl (param i32 i32 i32) (result i32)))
        (import "pagewarden" "fork" (func $fork (result i32)))
        (import "pagewarden" "clone" (func $clone (param i32 i32) (result i32)))
        (import "pagewarden" "exit" (func $exit (param i32)))
        (import "pagewarden" "wait" (func $wait (param i32) (result i32)))
        (import "pagewarden" "waitpid" (func $waitpid (param i32 i32 i32) (result i32)))
        (import "pagewarden" "getpid" (func $getpid (result i32)))
        (import "pagewarden" "getppid" (func $getppid (result i32)))
        (import "pagewarden" "syscall" (func $syscall (param i64 i64 i64 i64 i64 i64 i64) (result i64)))
    "#;
    /// What most tests want to do in a cage, one thing a function.
    const TOOLS: &str = r#"
        (func (export "mmap") (param i32 i32 i32 i32) (result i32)
            (call $mmap (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const -1) (i64.const 0)))
        (func (export "munmap") (param i32 i32) (result i32) (call $munmap (local.get 0) (local.get 1)))
        (func (export "mprotect") (param i32 i32 i32) (result i32)
            (call $mprotect (local.get 0) (local.get 1) (local.get 2)))
        (func (export "brk") (param i32) (result i32) (call $brk (local.get 0)))
        (func (export "sbrk") (param i32) (result i32) (call $sbrk (local.get 0)))
        (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
        (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1)))
    "#;
    let text = format!("(module {IMPORTS} {memory} {TOOLS} {parts})");
    cages.load(text.as_bytes(), "test").unwrap()
}

/// A process that has begun.
pub(crate) fn start(cages: &Cages, program: &Program) -> Cage {
    cages.start(program, Setup::default()).unwrap()
}

/// Calls a function that takes and returns numbers of 32 bits.
pub(crate) fn call(cage: &mut Cage, name: &str, args: &[i32]) -> i32 {
    let args: Vec<Val> = args.iter().map(|arg| Val::I32(*arg)).collect();
    match cage.call(name, &args).unwrap()[..] {
        [Val::I32(result)] => result,
        [] => 0,
        ref other => panic!("{name} returns {other:?}"),
    }
}

/// The same for one that is to be stopped.
pub(crate) fn trap(cage: &mut Cage, name: &str, args: &[i32]) -> crate::CageTrap {
    let args: Vec<Val> = args.iter().map(|arg| Val::I32(*arg)).collect();
    match cage.call(name, &args) {
        Err(Ended::Trap(trap)) => *trap,
        other => panic!("{name} ends with {other:?}"),
    }
}

/// Maps private anonymous memory, readable and writable, wherever there is room.
pub(crate) fn map(cage: &mut Cage, bytes: i32) -> i32 {
    let address = call(cage, "mmap", &[0, bytes, 3, 0x22]);
    assert!(!(-4095..0).contains(&address), "mmap fails with {address}");
    address
}
