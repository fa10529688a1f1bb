//! Forks, children, and how they end.

use super::{cages, cages_with, call, map, program, start, trap};
use crate::{Cage, CageOptions, Cages, Ended, Program, Setup, TrapKind, Val};

/// Functions that children begin at, by their place in the table, and what a parent does about them.
const FAMILY: &str = r#"
    (type $unary (func (param i32) (result i32)))
    (global $global (mut i32) (i32.const 10))
    (global $wide (mut v128) (v128.const i32x4 1 2 3 4))
    (global $chosen (mut funcref) (ref.func $square))
    (table $first 10 funcref)
    (table $second 2 16 funcref)
    (elem (table $first) (i32.const 1) func $exits $returns $crashes $divides $aborts $sleeps $parent $of_two $of_wide)
    (elem (table $second) (i32.const 0) func $square)
    (elem declare func $negate $square)
    (data $passive "passive")

    (func $square (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))
    (func $negate (param i32) (result i32) (i32.sub (i32.const 0) (local.get 0)))
    (func $exits (param i32) (call $exit (local.get 0)))
    (func $returns (param i32) (result i32) (i32.add (local.get 0) (global.get $global)))
    (func $crashes (param i32) (i32.store (local.get 0) (i32.const 1)))
    (func $divides (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
    (func $of_two (param i32 i32))
    (func $of_wide (param i64))
    (func $aborts (param i32) (unreachable))
    ;; Loads until somebody has stored.
    (func $sleeps (param i32) (loop (br_if 0 (i32.eqz (i32.load (local.get 0))))))
    ;; As many children as the argument says, one the child of the other.
    (func $parent (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
        (drop (call $clone (i32.const 7) (i32.sub (local.get 0) (i32.const 1))))
        (drop (call $wait (i32.const 70000)))
        (i32.add (i32.const 1) (i32.shr_u (i32.load (i32.const 70000)) (i32.const 8))))

    (func (export "clone") (param i32 i32) (result i32) (call $clone (local.get 0) (local.get 1)))
    (func (export "wait") (param i32) (result i32) (call $wait (local.get 0)))
    (func (export "waitpid") (param i32 i32 i32) (result i32)
        (call $waitpid (local.get 0) (local.get 1) (local.get 2)))
    (func (export "fork") (result i32) (call $fork))
    (func (export "exit") (param i32) (call $exit (local.get 0)))
    (func (export "global") (result i32) (global.get $global))
    (func (export "set_global") (param i32) (global.set $global (local.get 0)))
    (func (export "wide") (result i32) (i32x4.extract_lane 2 (global.get $wide)))
    (func (export "change") (param i32)
        (global.set $wide (i32x4.splat (local.get 0)))
        (global.set $chosen (ref.func $negate))
        (drop (table.grow $second (ref.func $negate) (i32.const 2)))
        (table.set $second (i32.const 0) (ref.null func))
        (table.set $second (i32.const 1) (global.get $chosen))
        (data.drop $passive))
    (func (export "by_table") (param i32 i32) (result i32)
        (call_indirect $second (type $unary) (local.get 0) (local.get 1)))
    (func (export "by_global") (param i32) (result i32)
        (table.set $first (i32.const 0) (global.get $chosen))
        (call_indirect $first (type $unary) (local.get 0) (i32.const 0)))
    (func (export "tables") (result i32) (table.size $second))
    (func (export "passive") (memory.init $passive (i32.const 70000) (i32.const 0) (i32.const 7)))
    (func (export "_start")
        (drop (call $clone (i32.const 2) (i32.const 5)))
        (drop (call $wait (i32.const 70000)))
        (call $exit (i32.shr_u (i32.load (i32.const 70000)) (i32.const 8))))
"#;
/// Places in the first table.
const EXITS: i32 = 1;
const RETURNS: i32 = 2;
const CRASHES: i32 = 3;
const DIVIDES: i32 = 4;
const ABORTS: i32 = 5;
const SLEEPS: i32 = 6;
const PARENT: i32 = 7;
/// Somewhere in the first memory.
const STATUS: i32 = 70_000;

const ECHILD: i32 = -10;
const EAGAIN: i32 = -11;
const EFAULT: i32 = -14;
const EINVAL: i32 = -22;
const ENOSYS: i32 = -38;

fn family() -> (Cages, Program, Cage) {
    let cages = cages();
    let program = program(&cages, FAMILY);
    let cage = start(&cages, &program);
    (cages, program, cage)
}

/// Waits for any child; its status.
fn status(cage: &mut Cage) -> i32 {
    assert!(call(cage, "wait", &[STATUS]) > 0);
    call(cage, "load", &[STATUS])
}

#[test]
fn a_fork_has_the_memory_and_both_change_their_own() {
    let (_cages, _, mut parent) = family();
    let (page, none) = (map(&mut parent, 8192), map(&mut parent, 4096));
    call(&mut parent, "store", &[page, 1]);
    call(&mut parent, "store", &[none, 4]);
    call(&mut parent, "mprotect", &[none, 4096, 0]);
    let mut child = parent.fork().unwrap();
    assert_eq!(child.pid(), 2);
    assert_eq!(call(&mut parent, "wait", &[0]), ECHILD, "the guest has not asked for it");
    assert_eq!(call(&mut child, "load", &[page]), 1);
    call(&mut parent, "store", &[page, 2]);
    assert_eq!((call(&mut child, "load", &[page]), call(&mut parent, "load", &[page])), (1, 2));
    call(&mut child, "store", &[page + 4096, 3]);
    assert_eq!((call(&mut parent, "load", &[page + 4096]), call(&mut child, "load", &[page + 4096])), (0, 3));
    assert_eq!(trap(&mut child, "load", &[none]).kind, TrapKind::Rights, "without rights as in the parent");
    call(&mut child, "mprotect", &[none, 4096, 3]);
    assert_eq!(call(&mut child, "load", &[none]), 4);
    assert_eq!(trap(&mut parent, "load", &[none]).kind, TrapKind::Rights);
    let mut grandchild = child.fork().unwrap();
    assert_eq!(call(&mut grandchild, "load", &[page + 4096]), 3);
    drop(parent);
    call(&mut grandchild, "store", &[page + 4096, 5]);
    assert_eq!(call(&mut child, "load", &[page + 4096]), 3);
}

#[test]
fn shared_memory_is_one_after_a_fork() {
    let (_cages, _, mut parent) = family();
    let page = call(&mut parent, "mmap", &[0, 8192, 3, 0x21]);
    let mut child = parent.fork().unwrap();
    call(&mut child, "store", &[page, 11]);
    assert_eq!(call(&mut parent, "load", &[page]), 11);
    call(&mut parent, "store", &[page + 4096, 12]);
    assert_eq!(call(&mut child, "load", &[page + 4096]), 12);
    assert_eq!(call(&mut parent, "munmap", &[page, 8192]), 0);
    assert_eq!(call(&mut child, "load", &[page]), 11);
}

#[test]
fn a_fork_has_the_globals_and_tables_as_they_are_by_now() {
    let (_cages, _, mut parent) = family();
    call(&mut parent, "set_global", &[33]);
    call(&mut parent, "change", &[44]);
    let mut child = parent.fork().unwrap();
    let mut grandchild = child.fork().unwrap();
    for cage in [&mut child, &mut grandchild] {
        assert_eq!((call(cage, "global", &[]), call(cage, "wide", &[]), call(cage, "tables", &[])), (33, 44, 4));
        assert_eq!(call(cage, "by_table", &[5, 1]), -5);
        assert_eq!(call(cage, "by_table", &[5, 3]), -5);
        assert_eq!(call(cage, "by_global", &[6]), -6);
        trap(cage, "by_table", &[5, 0]);
        assert_eq!(trap(cage, "passive", &[]).kind, TrapKind::Hole, "a segment that was dropped");
    }
    call(&mut child, "set_global", &[34]);
    assert_eq!((call(&mut parent, "global", &[]), call(&mut grandchild, "global", &[])), (33, 33));
}

#[test]
fn a_fork_before_any_change_has_what_the_module_says() {
    let (_cages, _, mut parent) = family();
    let mut child = parent.fork().unwrap();
    assert_eq!(
        (call(&mut child, "global", &[]), call(&mut child, "wide", &[]), call(&mut child, "tables", &[])),
        (10, 3, 2)
    );
    assert_eq!((call(&mut child, "by_table", &[5, 0]), call(&mut child, "by_global", &[6])), (25, 36));
    trap(&mut child, "by_table", &[5, 1]);
    call(&mut child, "passive", &[]);
}

#[test]
fn a_clone_begins_at_its_function_and_its_parent_learns_how_it_ended() {
    let (_cages, _, mut cage) = family();
    call(&mut cage, "set_global", &[30]);
    for (function, argument, wanted) in [
        (EXITS, 7, 7 << 8),
        (EXITS, 256 + 8, 8 << 8),
        (RETURNS, 9, 39 << 8),
        (CRASHES, 16, libc::SIGSEGV),
        (DIVIDES, 1, 1 << 8),
        (DIVIDES, 0, libc::SIGFPE),
        (ABORTS, 0, libc::SIGILL),
        (PARENT, 3, 4 << 8),
    ] {
        let pid = call(&mut cage, "clone", &[function, argument]);
        assert!(pid > 1, "{pid}");
        assert_eq!(status(&mut cage), wanted, "function {function} of {argument}");
    }
    assert_eq!(call(&mut cage, "wait", &[STATUS]), ECHILD);
}

#[test]
fn a_clone_wants_a_function_that_takes_a_number() {
    let (_cages, _, mut cage) = family();
    assert_eq!(call(&mut cage, "clone", &[0, 0]), EINVAL, "nothing there");
    assert_eq!(call(&mut cage, "clone", &[8, 0]), EINVAL, "takes two");
    assert_eq!(call(&mut cage, "clone", &[9, 0]), EINVAL, "takes another");
    assert_eq!(call(&mut cage, "clone", &[10, 0]), EINVAL, "beyond the table");
    assert_eq!(call(&mut cage, "clone", &[-1, 0]), EINVAL);
    assert_eq!(call(&mut cage, "wait", &[0]), ECHILD);
}

#[test]
fn waitpid_takes_numbers_groups_and_options() {
    let (_cages, _, mut cage) = family();
    let flag = call(&mut cage, "mmap", &[0, 4096, 3, 0x21]);
    let sleeping = call(&mut cage, "clone", &[SLEEPS, flag]);
    let dead = call(&mut cage, "clone", &[EXITS, 1]);
    assert_eq!(call(&mut cage, "waitpid", &[sleeping, STATUS, 1]), 0, "WNOHANG");
    assert_eq!(call(&mut cage, "waitpid", &[dead, 16, 0]), EFAULT, "the status cannot be written");
    assert_eq!(call(&mut cage, "waitpid", &[dead, STATUS, 0]), ECHILD, "and the child is gone");
    assert_eq!(call(&mut cage, "waitpid", &[sleeping, STATUS, 4]), EINVAL);
    assert_eq!(call(&mut cage, "waitpid", &[-5, STATUS, 1]), ECHILD, "no such group");
    for which in [-1, 0] {
        assert_eq!(call(&mut cage, "waitpid", &[which, STATUS, 1 | 2 | 8]), 0);
    }
    call(&mut cage, "store", &[flag, 1]);
    assert_eq!(call(&mut cage, "waitpid", &[-1, STATUS, 0]), sleeping);
    assert_eq!(call(&mut cage, "load", &[STATUS]), 0);
}

#[test]
fn there_are_no_more_processes_than_may_be() {
    let cages = cages_with(CageOptions { processes_max: 3, ..CageOptions::default() });
    let program = program(&cages, FAMILY);
    let mut cage = start(&cages, &program);
    let flag = call(&mut cage, "mmap", &[0, 4096, 3, 0x21]);
    assert!(call(&mut cage, "clone", &[SLEEPS, flag]) > 0);
    let other = start(&cages, &program);
    assert_eq!(call(&mut cage, "clone", &[SLEEPS, flag]), EAGAIN);
    assert!(cage.fork().is_err());
    assert!(cages.start(&program, Setup::default()).is_err());
    drop(other);
    assert!(call(&mut cage, "clone", &[EXITS, 0]) > 0);
    call(&mut cage, "store", &[flag, 1]);
    status(&mut cage);
    status(&mut cage);
    drop(cage);
    assert_eq!(cages.processes(), 0);
}

#[test]
fn fork_without_asyncify_says_so() {
    let (_cages, program, mut cage) = family();
    assert_eq!(call(&mut cage, "fork", &[]), ENOSYS);
    assert!(program.fork_advice().unwrap().contains("--asyncify"));
}

#[test]
fn a_process_runs_to_its_exit() {
    let (cages, program, mut cage) = family();
    call(&mut cage, "set_global", &[30]);
    let exit = cage.run().unwrap();
    assert_eq!((exit.code, exit.status(), exit.shell_code(), exit.trap), (35, 35 << 8, 35, None));
    assert!(exit.maps.contains("rw-p"), "{}", exit.maps);
    assert_eq!(cages.processes(), 0);
    let mut cage = start(&cages, &program);
    assert!(matches!(cage.call("exit", &[Val::I32(3)]), Err(Ended::Exit(3))));
    assert!(matches!(cage.call("exit", &[]), Err(Ended::NotCalled(_))), "too few arguments");
    assert!(matches!(cage.call("exit", &[Val::I64(3)]), Err(Ended::NotCalled(_))), "of another type");
    assert!(matches!(cage.call("none", &[]), Err(Ended::NotCalled(_))));
}

/// What the asyncify pass makes of a program, by hand: `outer` calls `inner`, which forks. Each notes one number, and where
/// it was is clear, as each has one call.
const ASYNCIFY: &str = r#"
    (global $state (mut i32) (i32.const 0))
    (global $data (mut i32) (i32.const 0))
    (func (export "asyncify_start_unwind") (param i32) (global.set $data (local.get 0)) (global.set $state (i32.const 1)))
    (func (export "asyncify_stop_unwind") (global.set $state (i32.const 0)))
    (func (export "asyncify_start_rewind") (param i32) (global.set $data (local.get 0)) (global.set $state (i32.const 2)))
    (func (export "asyncify_stop_rewind") (global.set $state (i32.const 0)))
    (func $push (param i32)
        (if (i32.ge_u (i32.add (i32.load (global.get $data)) (i32.const 4)) (i32.load offset=4 (global.get $data)))
            (then (unreachable)))
        (i32.store (i32.load (global.get $data)) (local.get 0))
        (i32.store (global.get $data) (i32.add (i32.load (global.get $data)) (i32.const 4))))
    (func $pop (result i32)
        (i32.store (global.get $data) (i32.sub (i32.load (global.get $data)) (i32.const 4)))
        (i32.load (i32.load (global.get $data))))
    ;; The number that fork returns, and ten times the argument.
    (func $inner (param $local i32) (result i32)
        (local $pid i32)
        (if (i32.eq (global.get $state) (i32.const 2)) (then (local.set $local (call $pop))))
        (local.set $pid (call $fork))
        (if (i32.eq (global.get $state) (i32.const 1)) (then (call $push (local.get $local)) (return (i32.const 0))))
        (i32.add (local.get $pid) (i32.mul (local.get $local) (i32.const 10))))
    (func $outer (export "outer") (param $local i32) (result i32)
        (local $result i32)
        (if (i32.eq (global.get $state) (i32.const 2)) (then (local.set $local (call $pop))))
        (local.set $result (call $inner (i32.add (local.get $local) (i32.const 1))))
        (if (i32.eq (global.get $state) (i32.const 1)) (then (call $push (local.get $local)) (return (i32.const 0))))
        (i32.add (local.get $result) (i32.mul (local.get $local) (i32.const 100))))
    (func (export "wait") (param i32) (result i32) (call $wait (local.get 0)))
    (func (export "clone") (param i32 i32) (result i32) (call $clone (local.get 0) (local.get 1)))
    ;; As many forks as the argument says, each by all that are there; children exit with how many they were.
    (func $tree (export "tree") (param $left i32) (result i32)
        (local $pid i32) (local $count i32)
        (if (i32.eq (global.get $state) (i32.const 2))
            (then (local.set $count (call $pop)) (local.set $left (call $pop)))
            (else (local.set $count (i32.const 1))))
        (block $done
            (loop $next
                (if (i32.eq (global.get $state) (i32.const 0)) (then
                    (br_if $done (i32.eqz (local.get $left)))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))))
                (local.set $pid (call $fork))
                (if (i32.eq (global.get $state) (i32.const 1))
                    (then (call $push (local.get $left)) (call $push (local.get $count)) (return (i32.const 0))))
                (if (i32.eqz (local.get $pid)) (then (local.set $count (i32.const 1))))
                (br $next)))
        (block $none
            (loop $child
                (br_if $none (i32.lt_s (call $wait (i32.const 70000)) (i32.const 0)))
                (local.set $count (i32.add (local.get $count) (i32.shr_u (i32.load (i32.const 70000)) (i32.const 8))))
                (br $child)))
        (local.get $count))
    (table 2 funcref)
    (elem (i32.const 1) func $tree)
    (func (export "stuck") (param i32) (drop (call $fork)) (i32.store (local.get 0) (i32.const 1)))
    (func (export "with_reference") (param funcref) (result i32) (call $inner (i32.const 0)))
    ;; Says that it forks, and returns as if nothing were.
    (func (export "liar") (result i32) (drop (call $fork)) (global.set $state (i32.const 0)) (i32.const 5))
"#;

#[test]
fn fork_returns_twice_several_frames_deep() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    let before = cage.maps_text();
    assert_eq!(call(&mut cage, "outer", &[0]), 2 + 10);
    assert_eq!(status(&mut cage), 10 << 8, "the child has fork's 0");
    assert_eq!(call(&mut cage, "outer", &[1]), 3 + 20 + 100);
    assert_eq!(status(&mut cage), 120 << 8);
    assert_eq!(cage.maps_text(), before, "the buffer is gone");
}

#[test]
fn a_tree_of_forks_counts_all_its_processes() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    assert_eq!(call(&mut cage, "tree", &[0]), 1);
    assert_eq!(call(&mut cage, "tree", &[4]), 16);
    assert!(call(&mut cage, "clone", &[1, 3]) > 0, "forks in the child of a clone");
    assert_eq!(status(&mut cage), 8 << 8);
    drop(cage);
    assert_eq!(cages.processes(), 0);
}

#[test]
fn a_fork_that_is_refused_returns_why() {
    let cages = cages_with(CageOptions { processes_max: 1, ..CageOptions::default() });
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    assert_eq!(call(&mut cage, "outer", &[0]), EAGAIN + 10);
    assert_eq!(call(&mut cage, "wait", &[0]), ECHILD);
    let cages = cages_with(CageOptions { commit_limit: Some(1 << 20), ..CageOptions::default() });
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    assert_eq!(call(&mut cage, "outer", &[0]), -12 + 10, "no room for the buffer");
}

#[test]
fn a_program_that_lies_about_asyncify_hurts_itself_alone() {
    let cages = cages_with(CageOptions { processes_max: 8, ..CageOptions::default() });
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    // Unwinding has begun, so it forks; called again it comes to its fork once more, which ends the rewinding.
    assert_eq!(call(&mut cage, "liar", &[]), 5);
    assert_eq!(status(&mut cage), 5 << 8);
    assert_eq!(call(&mut cage, "tree", &[0]), 1);
}

#[test]
fn a_guest_that_is_stopped_on_its_way_to_a_fork_is_on_that_way_no_more() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    assert_eq!(trap(&mut cage, "stuck", &[16]).kind, TrapKind::Hole);
    // Its own functions believe that they unwind until it says otherwise.
    cage.call("asyncify_stop_unwind", &[]).unwrap();
    assert_eq!(call(&mut cage, "outer", &[0]), 2 + 10);
    assert_eq!(status(&mut cage), 10 << 8);
}

#[test]
fn a_fork_of_a_call_that_was_given_a_reference_is_refused() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, ASYNCIFY));
    assert_eq!(cage.call("with_reference", &[Val::FuncRef(None)]).unwrap()[0].unwrap_i32(), EINVAL);
    assert_eq!(call(&mut cage, "wait", &[0]), ECHILD);
}
