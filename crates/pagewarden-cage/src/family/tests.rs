//! Families without threads or memory.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pagewarden::Errno;

use super::{Census, FIRST, Family, Patience, Process, Which};

const ECHILD: Errno = Errno::Other(10);

fn family(most: usize) -> (Arc<Census>, Process) {
    let census = Census::new(most);
    let first = Family::first(census.admit().unwrap());
    (census, first)
}

fn child(census: &Arc<Census>, parent: &Process) -> Process {
    parent.child(census.admit().unwrap())
}

#[test]
fn a_parent_learns_once_how_a_child_has_ended() {
    let (census, first) = family(8);
    assert_eq!((first.pid(), first.parent()), (FIRST, 0));
    let (a, b) = (child(&census, &first), child(&census, &first));
    assert_eq!((a.pid(), b.pid(), a.parent()), (2, 3, FIRST));
    assert_eq!(first.wait(Which::Any, Patience::Looks), Ok(None));
    b.end(7 << 8);
    assert_eq!(first.wait(Which::One(a.pid()), Patience::Looks), Ok(None));
    assert_eq!(first.wait(Which::Any, Patience::Waits), Ok(Some((3, 7 << 8))));
    assert_eq!(first.wait(Which::One(3), Patience::Waits), Err(ECHILD));
    a.end(11);
    assert_eq!(first.wait(Which::One(2), Patience::Waits), Ok(Some((2, 11))));
    assert_eq!(first.wait(Which::Any, Patience::Looks), Err(ECHILD));
}

#[test]
fn one_process_does_not_wait_for_anothers_children() {
    let (census, first) = family(8);
    let a = child(&census, &first);
    let of_a = child(&census, &a);
    assert_eq!(first.wait(Which::One(of_a.pid()), Patience::Looks), Err(ECHILD));
    assert_eq!(of_a.wait(Which::Any, Patience::Looks), Err(ECHILD));
    assert_eq!(a.wait(Which::Any, Patience::Looks), Ok(None));
}

#[test]
fn orphans_become_the_first_processes_children() {
    let (census, first) = family(8);
    let a = child(&census, &first);
    let (living, dead) = (child(&census, &a), child(&census, &a));
    dead.end(1 << 8);
    a.end(0);
    assert_eq!(living.parent(), FIRST);
    assert_eq!(first.wait(Which::One(dead.pid()), Patience::Looks), Ok(Some((dead.pid(), 1 << 8))));
    assert_eq!(first.wait(Which::One(a.pid()), Patience::Looks), Ok(Some((a.pid(), 0))));
    assert_eq!(first.wait(Which::Any, Patience::Looks), Ok(None), "one lives");
}

#[test]
fn nobody_keeps_the_dead_of_a_family_without_a_first() {
    let (census, first) = family(8);
    let (a, b) = (child(&census, &first), child(&census, &first));
    a.end(0);
    assert_eq!(census.count(), 3, "nobody has asked for it");
    first.end(0);
    assert_eq!(census.count(), 1);
    assert_eq!(b.parent(), 0);
    b.end(0);
    assert_eq!(census.count(), 0);
}

#[test]
fn a_process_that_is_dropped_was_killed() {
    let (census, first) = family(8);
    let a = child(&census, &first);
    let pid = a.pid();
    drop(a);
    assert_eq!(first.wait(Which::Any, Patience::Looks), Ok(Some((pid, libc::SIGKILL))));
    let forgotten = child(&census, &first);
    forgotten.forget();
    assert_eq!(first.wait(Which::Any, Patience::Looks), Err(ECHILD));
    drop(forgotten);
    assert_eq!(census.count(), 1);
}

#[test]
fn no_more_are_admitted_than_there_may_be_and_the_dead_count() {
    let (census, first) = family(2);
    let a = child(&census, &first);
    assert!(census.admit().is_none());
    a.end(0);
    assert!(census.admit().is_none());
    first.wait(Which::Any, Patience::Looks).unwrap();
    assert!(census.admit().is_some());
}

#[test]
fn the_embedders_processes_are_nobodys_to_wait_for() {
    let (census, first) = family(8);
    let own = first.unwaited(census.admit().unwrap());
    assert_eq!((own.parent(), first.wait(Which::Any, Patience::Looks)), (0, Err(ECHILD)));
    own.end(0);
    assert_eq!(census.count(), 1);
}

#[test]
fn who_waits_is_woken_by_an_end() {
    let (census, first) = family(8);
    let a = child(&census, &first);
    let waited = thread::scope(|scope| {
        let waiting = scope.spawn(|| first.wait(Which::Any, Patience::Waits));
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        a.end(3 << 8);
        waiting.join().unwrap()
    });
    assert_eq!(waited, Ok(Some((2, 3 << 8))));
}

#[test]
fn numbers_are_not_used_again_at_once() {
    let (census, first) = family(8);
    let pids: Vec<i32> = (0..3)
        .map(|_| {
            let child = child(&census, &first);
            child.end(0);
            first.wait(Which::Any, Patience::Looks).unwrap();
            child.pid()
        })
        .collect();
    assert_eq!(pids, [2, 3, 4]);
}
