//! What the kernel shows of itself: each check is a line of the transcript.
//!
//! The first processor runs them one after the other, and programs with all others meanwhile. After each group the books
//! are as they were before it: nothing has leaked.

mod elf;
mod frames;
mod other_world;
mod protection;

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use pagewarden::cap::{FrameAllocatorCap, Rights};
use pagewarden::{Limits, Resource};
use pagewarden_kernel_abi::name;

use crate::calls::Spawner;
use crate::machine::{Books, kernel};
use crate::process::Process;
use crate::transcript::{log, report};
use crate::{mmu, processor, programs, schedule};

/// Milliseconds that a program may take.
const PATIENCE: u64 = 20_000;

/// What a program is given, and what it may have.
struct Given {
    name: &'static str,
    limits: Limits,
    capabilities: Capabilities,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Capabilities {
    None,
    /// Frames, and the right to start processes.
    All,
}

impl Given {
    const fn nothing(name: &'static str) -> Self {
        Self { name, limits: Limits::UNLIMITED, capabilities: Capabilities::None }
    }

    const fn all(name: &'static str) -> Self {
        Self { capabilities: Capabilities::All, ..Self::nothing(name) }
    }
}

/// Runs all checks.
pub(crate) fn run() {
    let before = kernel().books();
    group("protection", protection::check);
    group("images", elf::check);
    group("programs", || {
        run_program(&Given::nothing("hello"));
        run_program(&Given::nothing("small"));
        run_program(&Given::nothing("libc"));
    });
    group("faults", || run_program(&Given::nothing("faults")));
    group("reservations and quotas", || {
        let limits = Limits::UNLIMITED.with(Resource::Committed, 256);
        run_program(&Given { limits, ..Given::nothing("vm") });
    });
    group("out of frames", frames::check);
    group("memory objects", || {
        run_program(&Given::all("memory_parent"));
        run_program(&Given::all("producer"));
    });
    group("forks", || run_program(&Given::nothing("forks")));
    group("bad pointers", || run_program(&Given::all("pointers")));
    group("threads", || {
        let before = mmu::shoot_downs();
        run_program(&Given::all("threads"));
        let were_some = mmu::shoot_downs() > before || processor::all().len() == 1;
        let outcome = if were_some { Ok(()) } else { Err("they were not asked") };
        report(format_args!("other processors have forgotten translations that they were asked to forget"), outcome);
    });
    group("another world's memory", other_world::check);
    log!("end");
    end(before);
}

/// Runs a group of checks, after which nothing may be used that was not before.
fn group(title: &str, checks: impl FnOnce()) {
    log!("{title}");
    let before = kernel().books();
    checks();
    let after = kernel().books();
    report(format_args!("{title}: nothing is left"), expect(before, after));
}

/// Whether something is what it should be.
fn expect<T: PartialEq + fmt::Debug>(wanted: T, got: T) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(alloc::format!("got {got:?}, wanted {wanted:?}")) }
}

/// Runs a program to its end. That it exits with 0 is a check.
fn run_program(given: &Given) {
    let name = given.name;
    let status = load(given).and_then(|process| finish(&process));
    report(format_args!("{name} ends well"), status.and_then(|status| expect(0, status)));
}

/// A process with what it is given.
fn load(given: &Given) -> Result<Arc<Process>, String> {
    let kernel = kernel();
    let account = kernel.ledger.root().child(given.limits);
    let process = programs::load(given.name, account, given.limits).map_err(|error| alloc::format!("{error}"))?;
    if given.capabilities == Capabilities::All {
        let memory = process.memory().ok_or("it has no memory")?;
        let pool = kernel.ledger.root().child(Limits::UNLIMITED);
        let frames = Arc::new(FrameAllocatorCap::new(&kernel.pager, pool));
        let given = memory
            .give(frames, Rights::TRANSFER, name::FRAMES)
            .and_then(|_| memory.give(Arc::new(Spawner), Rights::TRANSFER, name::SPAWNER));
        given.map_err(|error| alloc::format!("{error}"))?;
    }
    Ok(process)
}

/// Lets a process run, and threads, until it is over; its status. One that takes too long is killed.
fn finish(process: &Arc<Process>) -> Result<u64, String> {
    process.start().map_err(|errno| alloc::format!("it does not start: {errno}"))?;
    let end = processor::current().ticks() + PATIENCE;
    schedule::run_until(|| process.status().is_some() || processor::current().ticks() > end);
    if process.status().is_none() {
        process.end(u64::MAX - 1);
        schedule::run_until(|| process.status().is_some());
        return Err(String::from("it took too long"));
    }
    Ok(process.status().unwrap_or_default())
}

/// Nothing is used that was not when the checks began, and every frame is somebody's or free.
fn end(before: Books) {
    let kernel = kernel();
    let frames = kernel.pager.frames();
    frames.check_invariants();
    kernel.space.check_invariants();
    let after = kernel.books();
    report(format_args!("the books are what they were before the checks"), expect(before, after));
    let (used, total) = (after.frames + after.tables, frames.total());
    let sum = expect(total, after.free + used);
    report(format_args!("every frame is accounted for: {} free, {used} the kernel's, {total} in all", after.free), sum);
}
