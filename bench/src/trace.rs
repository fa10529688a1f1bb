//! Recorded memory calls of real programs, as edits of maps of regions.
//!
//! Owns the recorded programs (`bench/traces`) and what their calls did to the map of each process. Outside: which
//! map the edits are replayed into, and measuring it.
//!
//! What is modelled:
//! - Calls that failed are no edits. Each other call is as many edits as it takes to say what it changed, so a
//!   replay needs no knowledge of its own: what a move carries along, for instance, is found here, in a map that
//!   follows the record.
//! - A thread edits the map of its process. So does a child of vfork, until it calls execve, which gives it a map.
//! - A file is the object that a descriptor was at the time of a map; a fixed map with the same descriptor over or
//!   right above a region of that file (as a loader does) maps the same object. Any other map is of a new object,
//!   since the record does not tell when descriptors are opened.
//! - `MADV_DONTFORK` replaces regions by the same with the flag, and forks drop them from the child.
//!   Other advice changes no region and is a [visit](Edit::Visit).
//!
//! What is not: what execve itself maps (image, stack, vdso), as the record begins after it; changes of what was
//! never seen to be mapped do nothing. Private memory that is mapped writable is
//! [`COMMITTED`](pagewarden::RegionFlags::COMMITTED), so that what a loader makes read-only stays a region of its own;
//! memory that becomes writable later is not, as a change of rights does nothing else here. The sizes of System V
//! segments are not in the record: each is one page, which is what the one program that uses them asks for.

mod model;
mod record;
#[cfg(test)]
mod tests;

use anyhow::Result;
use pagewarden::{Prot, Region};

use crate::map::Pages;

/// What a call did to the map of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The kernel looked for a gap; the edit after this one fills it.
    Search {
        /// How many pages it had to have.
        wanted: u64,
    },
    /// `pages` became `region`, whatever was there.
    Replace {
        /// Where.
        pages: Pages,
        /// What is there now.
        region: Region,
    },
    /// Whatever was in `pages` is gone.
    Remove {
        /// Where.
        pages: Pages,
    },
    /// Whatever is mapped in `pages` has new rights.
    Protect {
        /// Where.
        pages: Pages,
        /// The rights.
        prot: Prot,
    },
    /// The regions in `pages` were looked at and did not change.
    Visit {
        /// Where.
        pages: Pages,
    },
    /// The process was copied.
    Fork {
        /// The number of the copy; it has not appeared before.
        child: usize,
    },
    /// The process has a fresh map, which is empty. If its number is new, it had none before.
    Exec,
    /// The process is gone, and its map with it.
    Exit,
}

/// An edit and whose map it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The process, counted from 0 in the order in which maps appear.
    pub process: usize,
    /// What happened to its map.
    pub edit: Edit,
}

/// A recorded program and the processes that it started.
#[derive(Clone, Debug)]
pub struct Program {
    /// What tables call it.
    pub name: &'static str,
    /// What happened, in order.
    pub calls: Vec<Call>,
}

impl Program {
    /// How many processes had a map of their own: every number of a process is below.
    pub fn processes(&self) -> usize {
        let number = |call: &Call| match call.edit {
            Edit::Fork { child } => child,
            _ => call.process,
        };
        self.calls.iter().map(number).max().map_or(0, |last| last + 1)
    }
}

/// Name and record of each program.
const RECORDS: [(&str, &str); 16] = [
    ("cargo", include_str!("../traces/cargo.txt")),
    ("gcc", include_str!("../traces/gcc.txt")),
    ("gitlog", include_str!("../traces/gitlog.txt")),
    ("initdb", include_str!("../traces/initdb.txt")),
    ("java", include_str!("../traces/java.txt")),
    ("java_zgc", include_str!("../traces/java_zgc.txt")),
    ("node", include_str!("../traces/node.txt")),
    ("perl", include_str!("../traces/perl.txt")),
    ("postgres", include_str!("../traces/postgres.txt")),
    ("python3", include_str!("../traces/python3.txt")),
    ("redis", include_str!("../traces/redis.txt")),
    ("rustc", include_str!("../traces/rustc.txt")),
    ("rustcver", include_str!("../traces/rustcver.txt")),
    ("sh", include_str!("../traces/sh.txt")),
    ("sqlite3", include_str!("../traces/sqlite3.txt")),
    ("xz", include_str!("../traces/xz.txt")),
];

/// The recorded programs.
///
/// # Errors
/// If a line of a record makes no sense: the error names the program and the line.
pub fn programs() -> Result<Vec<Program>> {
    RECORDS.iter().map(|&(name, text)| program(name, text)).collect()
}

fn program(name: &'static str, text: &str) -> Result<Program> {
    Ok(Program { name, calls: model::calls(&record::parse(name, text)?)? })
}
