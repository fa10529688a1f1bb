//! Two thousand cages at once: what the host gives them.

use std::fs;

use pagewarden_cage::Cage;

use crate::table::{Goal, Table};
use crate::{cages, call, start};

const CAGES: usize = 2000;

/// A figure of `/proc/self/status`, in KiB.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("a status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What the host has given: memory of this process alone, its page tables, and the cages' memory.
fn given(memory: u64) -> f64 {
    (status("RssAnon") + status("VmPTE")) as f64 / 1024.0 + memory as f64 / f64::from(1 << 20)
}

pub(crate) fn measure(table: &mut Table) {
    let (cages, program) = cages();
    let before = given(cages.memory().usage().host_bytes);
    let mut alive: Vec<Cage> = (0..CAGES).map(|_| start(&cages, &program)).collect();
    for cage in &mut alive {
        assert_eq!(call(cage, "begin", &[]), 1);
    }
    let usage = cages.memory().usage();
    let took = given(usage.host_bytes) - before;
    let of = format!("{:.0} KiB each, {} host mappings", took * 1024.0 / CAGES as f64, usage.mappings);
    table.add("2,000 cages that have run", (took, "MiB"), of, Goal::AtMost(200.0));
    for cage in &mut alive {
        assert_eq!(call(cage, "begin", &[]), 2, "each has its own counter");
    }
}
