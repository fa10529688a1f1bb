//! What thousands of cages cost the host, and what is left of them: figures of the process, so one test at a time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagewarden::Resource;
use pagewarden_cage::{Cage, CageOptions, Cages, Ended, Program, Setup, Val};

const MIB: i32 = 1 << 20;

const PROGRAM: &[u8] = br#"(module
    (import "pagewarden" "mmap" (func $mmap (param i32 i32 i32 i32 i32 i64) (result i32)))
    (import "pagewarden" "clone" (func $clone (param i32 i32) (result i32)))
    (import "pagewarden" "wait" (func $wait (param i32) (result i32)))
    (memory 2)
    (data (i32.const 65536) "data")
    (table 2 funcref)
    (elem (i32.const 1) func $child)
    (func $child (param i32) (result i32) (i32.store (local.get 0) (i32.const 3)) (i32.const 0))
    (func (export "family") (param i32)
        (drop (call $clone (i32.const 1) (local.get 0)))
        (drop (call $clone (i32.const 1) (i32.const 16)))
        (drop (call $wait (i32.const 0))) (drop (call $wait (i32.const 0))))
    (func (export "map") (param i32) (result i32)
        (call $mmap (i32.const 0) (local.get 0) (i32.const 3) (i32.const 0x22) (i32.const -1) (i64.const 0)))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
    (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))"#;

/// Keeps the other tests of this process out.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cages() -> (Cages, Program) {
    let options = CageOptions { processes_max: 4000, memory_bytes: 256 << 20, ..CageOptions::default() };
    let cages = Cages::new(&options).unwrap();
    let program = cages.load(PROGRAM, "test").unwrap();
    (cages, program)
}

fn call(cage: &mut Cage, name: &str, args: &[i32]) -> i32 {
    let args: Vec<Val> = args.iter().map(|arg| Val::I32(*arg)).collect();
    cage.call(name, &args).unwrap().first().map_or(0, Val::unwrap_i32)
}

/// A figure of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn two_thousand_cages_live_at_once_in_little_memory() {
    let _alone = alone();
    let (cages, program) = cages();
    let before = status("RssAnon");
    let mut all: Vec<Cage> = (0..2000).map(|_| cages.start(&program, Setup::default()).unwrap()).collect();
    for (number, cage) in (0..).zip(&mut all) {
        call(cage, "store", &[70_000, number]);
    }
    for (number, cage) in (0..).zip(&mut all) {
        assert_eq!(call(cage, "load", &[70_000]), number);
    }
    let anonymous = status("RssAnon").saturating_sub(before) << 10;
    let frames = cages.memory().usage().host_bytes;
    assert!(anonymous + frames < 200 << 20, "{} and {} KiB a cage", anonymous / 2000 / 1024, frames / 2000 / 1024);
    drop(all);
    assert_eq!(cages.processes(), 0);
}

#[test]
fn nothing_is_left_of_cages_that_are_gone() {
    let _alone = alone();
    let (cages, program) = cages();
    let once = |cages: &Cages| {
        let mut cage = cages.start(&program, Setup::default()).unwrap();
        let address = call(&mut cage, "map", &[4 * MIB]);
        call(&mut cage, "fill", &[address, 1, 4 * MIB]);
        let mut child = cage.fork().unwrap();
        call(&mut child, "fill", &[address, 2, MIB]);
        call(&mut child, "store", &[65536, 2]);
        assert!(matches!(child.call("load", &[Val::I32(16)]), Err(Ended::Trap(_))));
        call(&mut cage, "family", &[address]);
        drop(cage);
        assert_eq!(call(&mut child, "load", &[address + MIB]), 0x0101_0101);
    };
    once(&cages);
    let used = |resource| cages.account().used(resource);
    let books = || (used(Resource::Committed), used(Resource::Virtual), used(Resource::Regions));
    let (frames, addresses) = (cages.memory().usage().frames, status("VmSize"));
    assert_eq!(books(), (0, 0, 0));
    for _ in 0..20 {
        once(&cages);
    }
    let usage = cages.memory().usage();
    assert_eq!((usage.frames, usage.mappings, cages.processes()), (frames, 0, 0));
    assert_eq!(books(), (0, 0, 0));
    assert!(status("VmSize") < addresses + (4 << 20), "a reservation is left, or a stack of each thread");
    assert!(status("Threads") <= 4, "children's threads are left");
    let memory = Arc::downgrade(cages.memory());
    drop((cages, program));
    assert!(memory.upgrade().is_none(), "something keeps the memory");
}
