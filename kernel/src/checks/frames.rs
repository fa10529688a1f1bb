//! What happens when there are no frames left: typed errors, and everything as it was.
//!
//! All free frames but a few are taken away from the pager, a few more each time, until what is tried succeeds.

use alloc::string::String;
use alloc::vec::Vec;

use pagewarden::cap::CapError;
use pagewarden::frame::{FrameNumber, FrameUse};
use pagewarden::{Errno, Limits, Resource};

use super::{Given, expect, finish, load};
use crate::machine::kernel;
use crate::memory::size;
use crate::process::SpawnError;
use crate::programs;
use crate::transcript::{note, report};

/// More frames than anything here takes.
const ENOUGH: u64 = 1000;

/// Frames that nobody else can have.
struct Taken(Vec<FrameNumber>);

impl Taken {
    /// All that are free.
    fn all() -> Self {
        let frames = kernel().pager.frames();
        let owner = frames.add_owner(&kernel().account).expect("memory for a record");
        let mut taken = Vec::with_capacity(size(frames.total()));
        while let Ok(frame) = frames.allocate(0, &owner, FrameUse::Anonymous) {
            taken.push(frame);
        }
        Self(taken)
    }

    /// Gives one back.
    fn give_back(&mut self) {
        if let Some(frame) = self.0.pop() {
            kernel().pager.frames().release(0, frame).expect("a frame that was taken");
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        while !self.0.is_empty() {
            self.give_back();
        }
    }
}

/// Tries something with no frame, with one, with two, until it succeeds: with how many. Each failure has to be for want of
/// memory and to leave the books as they were.
fn tried(mut attempt: impl FnMut() -> Result<(), Errno>) -> Result<u64, String> {
    let mut taken = Taken::all();
    for free in 0..ENOUGH {
        let before = kernel().books();
        expect(free, before.free)?;
        let outcome = attempt();
        let after = kernel().books();
        match outcome {
            Ok(()) => return Ok(free),
            Err(Errno::NoMem) if before == after => taken.give_back(),
            Err(Errno::NoMem) => return Err(alloc::format!("with {free} frames: {before:?} became {after:?}")),
            Err(other) => return Err(alloc::format!("with {free} frames: {other}")),
        }
    }
    Err(String::from("no number of frames is enough"))
}

fn say(text: &str, frames: Result<u64, String>) {
    if let Ok(frames) = frames {
        note!("{frames} frames are enough");
    }
    let needs_some = frames.and_then(|frames| if frames > 0 { Ok(()) } else { Err(String::from("it took none")) });
    report(format_args!("{text} fails with ENOMEM and leaves nothing, whatever frame is missing"), needs_some);
}

pub(super) fn check() {
    let unlimited = || kernel().ledger.root().child(Limits::UNLIMITED);
    let spawned = tried(|| match programs::load("hello", unlimited(), Limits::UNLIMITED) {
        Ok(_) => Ok(()),
        Err(error @ (SpawnError::Memory(_) | SpawnError::Load(_))) => Err(error.into()),
        Err(error) => panic!("a good image is refused: {error}"),
    });
    say("spawning a process", spawned);
    if let Ok(parent) = load(&Given::nothing("hello")) {
        let memory = parent.memory().expect("it has not run");
        say("forking one", tried(|| memory.fork(unlimited()).map(drop).map_err(CapError::errno)));
    }
    faulting();
    quota();
}

/// A process that touches more than there is.
fn faulting() {
    const FREE: u64 = 150;
    let before = kernel().books();
    let mut taken = Taken::all();
    for _ in 0..FREE {
        taken.give_back();
    }
    let status = load(&Given::nothing("hog")).and_then(|hog| finish(&hog));
    report(
        format_args!("a process that faults when no frame is free is killed"),
        status.and_then(|status| expect(9, status)),
    );
    report(format_args!("and gives back what it had"), expect(FREE, kernel().books().free));
    drop(taken);
    report(format_args!("all frames are free again"), expect(before, kernel().books()));
}

/// A process whose account may not have so many frames.
fn quota() {
    let limits = Limits::UNLIMITED.with(Resource::Frames, 100);
    let before = kernel().books();
    let status = load(&Given { limits, ..Given::nothing("hog") }).and_then(|hog| {
        let account = hog.memory().map(|memory| memory.table().account().clone());
        let status = finish(&hog)?;
        expect(Some(100), account.map(|account| account.peak(Resource::Frames)))?;
        Ok(status)
    });
    report(
        format_args!("a process that may have 100 frames is killed at its next"),
        status.and_then(|status| expect(9, status)),
    );
    report(format_args!("while all others are free"), expect(before, kernel().books()));
    let limits = Limits::UNLIMITED.with(Resource::Committed, 8);
    let account = kernel().ledger.root().child(limits);
    let refused = programs::load("hog", account, limits).map(drop).map_err(Errno::from);
    report(format_args!("one that may commit 8 pages is not loaded at all"), expect(Err(Errno::NoMem), refused));
}
