//! The calls that are tried in a small world, in every state: few parameters each, but all that can go wrong.

use std::vec::Vec;

use crate::cap::{Rights, TransferMode};
use crate::model::capability::{
    Access, Call, Capability, Life, MayMove, Model, Name, Over, Run, STALE, Step, Target, Where,
};
use crate::object::Placement;
use crate::prot::Prot;

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);
/// Less than what a process has that allocates.
const TO_LOOK: Rights = Rights::READ.union(Rights::MAP);
/// Not even to be mapped.
const TO_SEND: Rights = Rights::READ.union(Rights::TRANSFER);
const FIRST: Run = Run::new(0, 1);
const SECOND: Run = Run::new(1, 1);
const BOTH: Run = Run::new(0, 2);

/// Ways to begin, and how many calls are made after each, if there are `depth` after none: with memory that two processes
/// show, one of which may only look; with a snapshot of what is shown; with memory in a reservation.
pub(super) fn starts(depth: usize) -> Vec<(Vec<Step>, usize)> {
    let frames = Name::Given { process: 0, number: 1 };
    let memory = Name::Given { process: 0, number: 2 };
    let sent = Name::Given { process: 1, number: 1 };
    let space = Name::Given { process: 0, number: 0 };
    let at = Where::At(0);
    let show = |memory, prot| Call::Map { memory, part: FIRST, prot, place: at };
    let shared = [
        (0, Call::Allocate { frames, pages: 2, placement: Placement::Contiguous }),
        (0, show(memory, READ_WRITE)),
        (0, Call::Send { handle: memory, mode: TransferMode::Copy, rights: TO_LOOK, to: 1 }),
        (1, show(sent, Prot::READ)),
    ];
    let copied = [
        (0, Call::AllocateResizable { frames, pages: 1, capacity: 2 }),
        (0, show(memory, READ_WRITE)),
        (0, Call::Touch { page: 0, access: Access::Store(1) }),
        (0, Call::Snapshot { memory, part: FIRST }),
    ];
    let reserved = [
        (0, Call::Reserve { space, pages: 2, place: at }),
        (0, Call::Commit { space, range: FIRST, prot: READ_WRITE }),
        (0, Call::Touch { page: 0, access: Access::Store(1) }),
    ];
    let way = |calls: &[(usize, Call)]| calls.iter().map(|(by, call)| Step { by: *by, call: *call }).collect();
    Vec::from([(Vec::new(), depth), (way(&shared), depth - 2), (way(&copied), depth - 2), (way(&reserved), depth - 2)])
}

/// All calls in a canonical model, in an order that depends on nothing else.
pub(super) fn calls(model: &Model) -> Vec<Step> {
    let mut all = Vec::new();
    for by in 0..model.processes.len() {
        let mut calls = Vec::new();
        let running = model.processes[by].life == Life::Running;
        for (number, capability) in model.processes[by].handles.iter().enumerate() {
            let name = Name::Given { process: by, number };
            match capability {
                Some(Capability { target: Target::Memory(_), rights }) => {
                    memory_calls(&mut calls, name, *rights, 1 - by)
                }
                Some(Capability { target: Target::Frames, .. }) => allocations(&mut calls, name),
                Some(Capability { target: Target::Space(_), .. }) => space_calls(&mut calls, name),
                None => {}
            }
        }
        // Whoever has ended has no handles, and others' and stale ones are nobody's.
        let other = Name::Given { process: 1 - by, number: 1 };
        for name in [Name::Given { process: by, number: STALE }, other, Name::Word(1 << 20)] {
            calls.push(Call::Map { memory: name, part: FIRST, prot: Prot::READ, place: Where::At(0) });
            calls.push(Call::Read { memory: name, part: FIRST });
            calls.push(Call::Release { handle: name });
            calls.push(Call::Send { handle: name, mode: TransferMode::Move, rights: TO_LOOK, to: 1 - by });
        }
        linux_calls(&mut calls);
        if running {
            calls.push(Call::Exit);
        }
        all.extend(calls.into_iter().map(|call| Step { by, call }));
    }
    all
}

fn allocations(calls: &mut Vec<Call>, frames: Name) {
    for pages in [1, 2] {
        calls.push(Call::Allocate { frames, pages, placement: Placement::Scattered });
    }
    calls.push(Call::AllocateResizable { frames, pages: 1, capacity: 2 });
    // The pool is no memory.
    calls.push(Call::Map { memory: frames, part: FIRST, prot: Prot::READ, place: Where::At(0) });
}

fn memory_calls(calls: &mut Vec<Call>, memory: Name, held: Rights, other: usize) {
    for (part, page) in [(FIRST, 0), (FIRST, 1), (SECOND, 0), (BOTH, 0)] {
        for prot in [Prot::READ, READ_WRITE] {
            calls.push(Call::Map { memory, part, prot, place: Where::At(page) });
        }
    }
    for range in [FIRST, SECOND, BOTH] {
        calls.push(Call::UnmapBorrowed { memory, range });
    }
    for range in [FIRST, BOTH] {
        for prot in [Prot::NONE, READ_WRITE] {
            calls.push(Call::ProtectBorrowed { memory, range, prot });
        }
    }
    for part in [FIRST, SECOND] {
        calls.push(Call::Slice { memory, part, rights: held - Rights::RESIZE });
        calls.push(Call::Read { memory, part });
        calls.push(Call::Write { memory, part, byte: 1 });
    }
    calls.push(Call::Slice { memory, part: FIRST, rights: TO_LOOK });
    calls.push(Call::Slice { memory, part: FIRST, rights: Rights::all() });
    calls.push(Call::Snapshot { memory, part: FIRST });
    for pages in [0, 2, 3] {
        calls.push(Call::Resize { memory, pages });
    }
    calls.push(Call::Info { memory });
    calls.push(Call::Duplicate { handle: memory, rights: TO_SEND });
    calls.push(Call::Duplicate { handle: memory, rights: Rights::all() });
    calls.push(Call::Release { handle: memory });
    for (mode, rights) in
        [(TransferMode::Copy, TO_LOOK), (TransferMode::Copy, Rights::all()), (TransferMode::Move, held)]
    {
        calls.push(Call::Send { handle: memory, mode, rights, to: other });
    }
    calls.push(Call::Commit { space: memory, range: FIRST, prot: READ_WRITE });
}

fn space_calls(calls: &mut Vec<Call>, space: Name) {
    calls.push(Call::Reserve { space, pages: 1, place: Where::Anywhere });
    calls.push(Call::Reserve { space, pages: 2, place: Where::At(0) });
    calls.push(Call::Reserve { space, pages: 1, place: Where::At(2) });
    for range in [FIRST, SECOND, BOTH] {
        calls.push(Call::Commit { space, range, prot: READ_WRITE });
    }
    for range in [FIRST, BOTH] {
        calls.push(Call::Decommit { space, range });
        calls.push(Call::Protect { space, range, prot: Prot::NONE });
        calls.push(Call::UnmapReserved { space, range });
    }
    calls.push(Call::UnmapReserved { space, range: Run::new(1, 2) });
}

fn linux_calls(calls: &mut Vec<Call>) {
    calls.push(Call::Mmap { range: FIRST, prot: READ_WRITE, over: Over::Replaced });
    calls.push(Call::Mmap { range: Run::new(1, 2), prot: READ_WRITE, over: Over::Replaced });
    for range in [FIRST, SECOND] {
        calls.push(Call::Munmap { range });
    }
    calls.push(Call::Mprotect { range: BOTH, prot: READ_WRITE });
    calls.push(Call::Mprotect { range: FIRST, prot: Prot::NONE });
    calls.push(Call::Moved { range: FIRST, to: 1 });
    calls.push(Call::Resized { range: FIRST, pages: 2, may_move: MayMove::No });
    calls.push(Call::Discard { range: FIRST });
    for page in [0, 1] {
        calls.push(Call::Touch { page, access: Access::Store(1) });
        calls.push(Call::Touch { page, access: Access::Load });
    }
}
