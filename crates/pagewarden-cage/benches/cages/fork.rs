//! Fork with 256 MiB resident, and what the pages cost that are stored to afterwards, against copying.

use std::hint::black_box;

use pagewarden_cage::Cage;

use crate::table::{Goal, Table};
use crate::{cages, call, median, start, timed};

const PAGE: usize = 4096;
/// What is resident.
const BYTES: u32 = 256 << 20;
const PAGES: f64 = BYTES as f64 / PAGE as f64;
/// Forks of one parent.
const FORKS: usize = 10;

/// One fork, what came after it, and a copy of as much memory, in nanoseconds.
struct Turn {
    fork: f64,
    child_stores: f64,
    parent_stores: f64,
    child_loads: f64,
    copy: f64,
}

/// Copies as much memory into memory that is new.
fn copy(from: &[u8]) -> f64 {
    let (copied, took) = timed(|| black_box(from).to_vec());
    assert_eq!(black_box(copied).len(), from.len());
    took
}

fn turn(parent: &mut Cage, at: u32, number: u32, host: &[u8]) -> Turn {
    let (child, fork) = timed(|| parent.fork());
    let mut child = child.expect("a child");
    let (sum, child_loads) = timed(|| call(&mut child, "load", &[at, BYTES]));
    let before = number.wrapping_mul(BYTES / 4096);
    assert_eq!(sum, before, "the child has what the parent had");
    let (_, child_stores) = timed(|| call(&mut child, "store", &[at, BYTES, 77]));
    // The parent's pages are its own again when the child has its own: another child has them too.
    let witness = parent.fork().expect("a child");
    let (_, parent_stores) = timed(|| call(parent, "store", &[at, BYTES, number + 1]));
    assert_eq!(call(&mut child, "load", &[at, BYTES]), 77 * (BYTES / 4096), "the child has its own");
    drop((child, witness));
    Turn { fork, child_stores, parent_stores, child_loads, copy: copy(host) }
}

pub(crate) fn measure(table: &mut Table) {
    let (cages, program) = cages();
    let mut parent = start(&cages, &program);
    let at = call(&mut parent, "map", &[BYTES]);
    call(&mut parent, "store", &[at, BYTES, 1]);
    let host = vec![1; BYTES as usize];
    let turns: Vec<Turn> = (1..).take(FORKS).map(|number| turn(&mut parent, at, number, &host)).collect();
    let of = |figure: fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
    let (fork, copied) = (of(|turn| turn.fork), of(|turn| turn.copy));
    let against = format!("{:.1} ms to copy them into new memory", copied / 1e6);
    table.add("fork, 256 MiB resident", (fork / 1e6, "ms"), against.clone(), Goal::AtMost(10.0));
    table.add("the same, as a part of copying", (fork / copied, "x"), against, Goal::AtMost(0.1));
    let (first, last) = (turns[0].fork, turns[FORKS - 1].fork);
    let alike = format!("first {:.2} ms, tenth {:.2} ms", first / 1e6, last / 1e6);
    table.add("tenth fork of one parent, as a part of the first", (last / first, "x"), alike, Goal::AtMost(1.5));
    let a_page = |time: f64| (time / PAGES / 1e3, "us");
    let page_copied = format!("{:.2} us to copy one into new memory", copied / PAGES / 1e3);
    table.add(
        "a page that the child breaks",
        a_page(of(|turn| turn.child_stores)),
        page_copied.clone(),
        Goal::AtMost(3.0),
    );
    table.add("a page that the parent breaks", a_page(of(|turn| turn.parent_stores)), page_copied, Goal::AtMost(3.0));
    let loads = of(|turn| turn.child_loads);
    table.add("a page that the child only loads from", a_page(loads), String::from("-"), Goal::None);
    let mut child = parent.fork().expect("a child");
    let (_, scattered) = timed(|| call(&mut child, "scatter", &[at, BYTES / 4096, 78]));
    assert_eq!(call(&mut child, "load", &[at, BYTES]), 78 * (BYTES / 4096), "each page once");
    table.add("a page that the child breaks, in no order", a_page(scattered), String::from("-"), Goal::None);
    drop((child, parent));
    generations(table);
}

/// A child of a child, and so on, each of which stores to everything.
fn generations(table: &mut Table) {
    let (cages, program) = cages();
    let mut parent = start(&cages, &program);
    let at = call(&mut parent, "map", &[BYTES]);
    let mut took = Vec::new();
    for number in 1..=10 {
        call(&mut parent, "store", &[at, BYTES, number]);
        let (child, fork) = timed(|| parent.fork());
        took.push(fork);
        parent = child.expect("a child");
        assert_eq!(call(&mut parent, "load", &[at, BYTES]), number * (BYTES / 4096));
    }
    let (first, last) = (took[0], took[9]);
    let alike = format!("first {:.2} ms, tenth {:.2} ms", first / 1e6, last / 1e6);
    table.add("fork of the tenth generation, as a part of the first", (last / first, "x"), alike, Goal::AtMost(1.5));
}
