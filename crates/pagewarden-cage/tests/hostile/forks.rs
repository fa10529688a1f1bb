//! Forks in odd states, of guests that lie, and of more of them than there may be.

use pagewarden_cage::{Ended, Val};

use crate::support::{
    Guest, PAGE, READ, WRITE, Witness, beside_a_witness, cages, check_nothing_is_left, console, wait_for_ends,
};

const EAGAIN: i32 = -11;
const ENOMEM: i32 = -12;
const EINVAL: i32 = -22;
const ENOSYS: i32 = -38;
const ECHILD: i32 = -10;

/// Waits until there is no child; the statuses.
fn reap(guest: &mut Guest) -> Vec<i32> {
    let mut statuses = Vec::new();
    while guest.int("wait", &[PAGE]) != ECHILD {
        let mut status = [0; 4];
        guest.0.read(PAGE, &mut status).unwrap();
        statuses.push(i32::from_le_bytes(status));
    }
    statuses
}

const CHILDREN: &str = r#"
    (table $t 12 funcref)
    (elem (table $t) (i32.const 0) func $leave $none $long $two $store $abort $divide $deep $bomb $scribble)
    (func $leave (param i32) (result i32) (local.get 0))
    (func $none)
    (func $long (param i64))
    (func $two (param i32 i32) (result i32) (local.get 0))
    (func $store (param i32) (i32.store (local.get 0) (i32.const 1)))
    (func $abort (param i32) unreachable)
    (func $divide (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
    (func $deep (param i32) (call $deep (local.get 0)) (call $deep (local.get 0)))
    (func $bomb (param i32)
      (drop (call $clone (i32.const 8) (i32.const 0)))
      (drop (call $clone (i32.const 8) (i32.const 0)))
      (drop (call $wait (i32.const 0)))
      (drop (call $wait (i32.const 0))))
    (func $scribble (param i32)
      (memory.fill (i32.const 4096) (i32.const 0xaa) (i32.const 126976))
      (drop (call $mprotect (i32.const 4096) (i32.const 126976) (i32.const 0)))
      (drop (call $munmap (i32.const 4096) (i32.const 126976))))"#;

#[test]
fn children_at_functions_that_do_not_fit_are_refused() {
    beside_a_witness(&console(CHILDREN), |guest| {
        for index in [1, 2, 3, 10, 11, 12, 0x8000_0000, u32::MAX] {
            assert_eq!(guest.int("clone", &[index, 1]), EINVAL, "{index}");
        }
        assert_eq!(guest.int("fork", &[]), ENOSYS);
        assert_eq!(reap(guest), [0; 0]);
    });
    beside_a_witness(&console(""), |guest| {
        assert_eq!(guest.int("clone", &[0, 0]), EINVAL, "there is no table");
    });
}

#[test]
fn ends_of_children_are_told() {
    beside_a_witness(&console(CHILDREN), |guest| {
        for (index, argument, status) in [
            (0, 3, 3 << 8),
            (0, u32::MAX, 0xff00),
            (4, 0, libc::SIGSEGV),
            (4, 0x7fff_fff0, libc::SIGSEGV),
            (5, 0, libc::SIGILL),
            (6, 0, libc::SIGFPE),
            (7, 0, libc::SIGSEGV),
            (4, 2 * PAGE, 0),
        ] {
            assert!(guest.int("clone", &[index, argument]) > 1);
            assert_eq!(reap(guest), [status], "function {index} of {argument:x}");
        }
    });
}

#[test]
fn children_that_destroy_their_memory_destroy_no_one_elses() {
    beside_a_witness(&console(CHILDREN), |guest| {
        guest.call("fill", &[PAGE, 7, 31 * PAGE]).unwrap();
        for _ in 0..6 {
            assert!(guest.int("clone", &[9, 0]) > 1);
        }
        for status in reap(guest) {
            assert_eq!(status, 0);
        }
        let mut bytes = vec![0; 30 * PAGE as usize];
        guest.0.read(2 * PAGE, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn processes_end_where_there_may_be_no_more() {
    beside_a_witness(&console(CHILDREN), |guest| {
        let children = (0..100).take_while(|_| guest.int("clone", &[0, 1]) > 0).count();
        assert!((20..32).contains(&children), "{children} children");
        assert_eq!(guest.int("clone", &[0, 1]), EAGAIN);
        assert_eq!(reap(guest), vec![1 << 8; children]);
        assert!(guest.int("clone", &[8, 0]) > 1);
        assert_eq!(reap(guest), [0], "whoever could not have a child goes on without");
    });
}

#[test]
fn children_whose_memory_nobody_can_pay_for_are_refused() {
    beside_a_witness(&console(CHILDREN), |guest| {
        guest.map(0x100_0000, 40 << 8, READ | WRITE);
        guest.call("fill", &[0x100_0000, 1, 40 << 20]).unwrap();
        for _ in 0..3 {
            assert_eq!(guest.int("clone", &[0, 1]), ENOMEM);
        }
        assert_eq!(guest.int("munmap", &[0x100_0000, 40 << 20]), 0);
        assert!(guest.int("clone", &[0, 1]) > 1);
        assert_eq!(reap(guest), [1 << 8]);
    });
}

#[test]
fn processes_that_nobody_waits_for_leave_nothing() {
    beside_a_witness(&console(CHILDREN), |guest| {
        for index in [0, 4, 7, 8] {
            assert!(guest.int("clone", &[index, 0]) > 1);
        }
    });
}

/// A guest that exports what the asyncify pass adds, but does this instead, a few times at most: one that forks for ever
/// would be no error. So would its function that forks.
fn liar(deeds: [&str; 4]) -> String {
    let [start_unwind, stop_unwind, start_rewind, stop_rewind] = deeds.map(|deed| {
        format!(
            "(if (i32.lt_u (global.get $deeds) (i32.const 4))
              (then (global.set $deeds (i32.add (global.get $deeds) (i32.const 1))) {deed}))"
        )
    });
    console(&format!(
        r#"(table 1 funcref) (elem (i32.const 0) func $child)
        (global $deeds (mut i32) (i32.const 0))
        (global $calls (mut i32) (i32.const 0))
        (func $child (param i32) (result i32) (call $f))
        (func $deep (call $deep) (call $deep))
        (func $everything (drop (call $munmap (i32.const 4096) (i32.const 0xffffe000))))
        (func (export "asyncify_start_unwind") (param i32) {start_unwind})
        (func (export "asyncify_stop_unwind") {stop_unwind})
        (func (export "asyncify_start_rewind") (param i32) {start_rewind})
        (func (export "asyncify_stop_rewind") {stop_rewind})
        (func $f (export "f") (result i32)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (if (i32.gt_u (global.get $calls) (i32.const 4)) (then (return (i32.const -99))))
          (call $fork))"#
    ))
}

const DEEDS: [&str; 14] = [
    "",
    "unreachable",
    "(drop (call $fork))",
    "(drop (call $f))",
    "(call $deep)",
    "(call $everything)",
    "(call $exit (i32.const 3))",
    "(drop (call $clone (i32.const 0) (i32.const 0)))",
    "(drop (call $wait (i32.const 0)))",
    "(drop (call $brk (i32.const -1)))",
    "(drop (i32.load (i32.const 0)))",
    "(memory.fill (i32.const 4096) (i32.const 0xff) (i32.const 126976))",
    "(drop (call $mprotect (i32.const 4096) (i32.const 0xffffe000) (i32.const 0)))",
    "(drop (call $fork)) (drop (call $fork))",
];

/// What is done with the buffer that a fork has in the guest's memory.
const BUFFER_DEEDS: [&str; 4] = [
    "(drop (call $munmap (local.get 0) (i32.const 131072)))",
    "(drop (call $mprotect (local.get 0) (i32.const 131072) (i32.const 1)))",
    "(i32.store (local.get 0) (i32.const 0)) (i32.store (i32.load (local.get 0)) (i32.const 1))",
    "(i64.store (local.get 0) (i64.const -1))",
];

/// Has one guest after the other lie, beside the same witness.
fn lie(texts: impl IntoIterator<Item = String>) {
    let cages = cages();
    let witness = Witness::of(&cages);
    for text in texts {
        let mut guest = Guest::new(&cages, &text);
        for _ in 0..3 {
            match guest.call("f", &[]) {
                Ok(results) => assert!(matches!(results[..], [Val::I32(_)])),
                Err(Ended::Trap(_) | Ended::Exit(3)) => {}
                Err(other) => panic!("{other} of {text}"),
            }
            guest.check();
        }
        while guest.int("waitpid", &[u32::MAX, 0, 0]) > 0 {}
        drop(guest);
        wait_for_ends(&cages, Witness::PROCESSES);
    }
    witness.dismiss();
    check_nothing_is_left(&cages);
}

#[test]
fn guests_that_lie_about_asyncify_hurt_themselves() {
    lie(DEEDS.iter().flat_map(|deed| {
        (0..4).map(|place| {
            let mut deeds = [""; 4];
            deeds[place] = deed;
            liar(deeds)
        })
    }));
}

#[test]
fn guests_that_take_the_buffer_of_a_fork_away_hurt_themselves() {
    lie(BUFFER_DEEDS
        .iter()
        .flat_map(|deed| [[deed, "", "", ""], ["", "", deed, ""], [deed, "", deed, "(drop (call $fork))"]].map(liar)));
}

#[test]
fn asyncify_functions_of_other_types_are_no_way_to_fork() {
    let types = ["(param i64)", "(param i32 i32)", "(param funcref)", "(param i32) (result i32) (i32.const 1)"];
    let start = r#""asyncify_start_unwind") (param i32) "#;
    let texts = types.map(|ty| liar([""; 4]).replacen(start, &format!(r#""asyncify_start_unwind") {ty} "#), 1));
    assert!(texts.iter().all(|text| *text != liar([""; 4])));
    lie(texts);
}

#[test]
fn a_fork_that_was_stopped_in_between_is_over() {
    let text = liar(["", "unreachable", "", ""]);
    beside_a_witness(&text, |guest| {
        let maps = guest.0.maps_text();
        guest.trap("f", &[]);
        assert_eq!(guest.0.maps_text(), maps, "its buffer is given back");
        // Another call is one, not the rest of the fork.
        assert_eq!(guest.int("getpid", &[]), 1);
        assert_eq!(guest.int("wait", &[0]), ECHILD);
    });
}
