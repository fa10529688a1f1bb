//! Allocates memory, hands it to a child, and sees what the child stores there.
#![no_std]
#![no_main]

use pagewarden_kernel_abi::{Operation, name};
use runtime::given::rights;
use runtime::handover::{CHILDS, COUNT, PARENTS};
use runtime::linux::{Errno, Result, SEGMENT, end_of, prot};
use runtime::{PAGE, Pages, Start, check, equal, given, ring};

runtime::program!(main);

fn main(_start: &Start) {
    let (frames, spawner) = (given::handle(name::FRAMES), given::handle(name::SPAWNER));
    match allocate(frames) {
        Ok((memory, pages)) => share(spawner, memory, pages),
        Err(errno) => equal("memory is allocated and mapped", Err(errno), Ok(())),
    }
    runs(frames);
}

/// Shows pages of some memory.
fn map(memory: u64, [first, count]: [u64; 2], prot: u64) -> Result<Pages> {
    let [start, _] = ring::call(Operation::Map, memory, &[first, count, prot, 0])?;
    // SAFETY: the addresses were nobody's, and the memory is meant to be changed by others.
    Ok(unsafe { Pages::at(start, count) })
}

fn unmap(memory: u64, pages: Pages) -> Result<()> {
    ring::call(Operation::Unmap, memory, &[pages.start(), pages.count()]).map(drop)
}

fn release(handle: u64) -> Result<()> {
    ring::call(Operation::Release, handle, &[]).map(drop)
}

fn allocate(frames: u64) -> Result<(u64, Pages)> {
    let [memory, _] = ring::call(Operation::Allocate, frames, &[COUNT, 0])?;
    let info = ring::call(Operation::Info, memory, &[]);
    equal("the memory has as many pages as were asked for", info.map(|[pages, _]| pages), Ok(COUNT));
    let beyond = map(memory, [2, COUNT], prot::READ_WRITE).map(drop);
    equal("no pages beyond its end can be mapped", beyond, Err(Errno::INVAL));
    let pages = map(memory, [0, COUNT], prot::READ_WRITE)?;
    check("allocated pages are zeros", pages.is_zero());
    pages.fill(PARENTS);
    let window = map(memory, [1, 2], prot::READ)?;
    let is_same = (0..2 * PAGE).step_by(8).all(|offset| window.load(offset) == pages.load(PAGE + offset));
    check("two of them are shown again, and are the same", is_same);
    equal("the second view is unmapped", unmap(memory, window), Ok(()));
    Ok((memory, pages))
}

fn share(spawner: u64, memory: u64, pages: Pages) {
    let child = "memory_child";
    let place = child.as_ptr().expose_provenance() as u64;
    let spawn = || ring::call(Operation::Spawn, spawner, &[place, child.len() as u64, 256]);
    let unused = spawn().and_then(|[process, _]| send(memory, process).and_then(|()| release(process)));
    equal("a child that never ran is released with what it was given", unused, Ok(()));
    let spawned = spawn();
    let Ok([process, _]) = spawned else { return equal("a child is spawned", spawned, Ok([1, 0])) };
    let before = ring::call(Operation::Snapshot, memory, &[0, COUNT]).map(|[handle, _]| handle);
    equal("the child is given the memory", send(memory, process), Ok(()));
    moved(memory, process);
    // Nothing is said before the child has ended: it says something itself.
    let started = ring::call(Operation::Start, process, &[]);
    let wait = || ring::call(Operation::Wait, process, &[]).map(|[status, _]| status);
    let ended = started.and_then(|_| wait());
    equal("the child is let run", started, Ok([0, 0]));
    equal("the child ends well", ended, Ok(0));
    equal("the child's end can be asked for again", wait(), Ok(0));
    equal("nothing can be sent to who has ended", send(memory, process), Err(Errno::SRCH));
    check("who has ended does not run again", ring::call(Operation::Start, process, &[]).is_err());
    check("what the child has stored is there", pages.holds(CHILDS));
    let shown = before.and_then(|before| map(before, [0, COUNT], prot::READ));
    check("a snapshot has what was there before", shown.is_ok_and(|shown| shown.holds(PARENTS)));
    equal("the snapshot is released", before.and_then(release), Ok(()));
    equal("the child is released", release(process), Ok(()));
    equal("the memory is unmapped", unmap(memory, pages), Ok(()));
    let touched = end_of(|| {
        _ = pages.load(0);
        0
    });
    equal("memory that was unmapped cannot be touched", touched, Ok(SEGMENT));
    equal("memory cannot be unmapped twice", unmap(memory, pages), Err(Errno::INVAL));
    equal("the memory is released", release(memory), Ok(()));
    equal("a handle that was released is none", map(memory, [0, 1], prot::READ_WRITE).map(drop), Err(Errno::BADF));
    equal("a handle cannot be released twice", release(memory), Err(Errno::BADF));
}

/// Hands `memory` to a child that does not run yet.
fn send(memory: u64, process: u64) -> Result<()> {
    let rights = rights::READ | rights::WRITE | rights::MAP;
    let shared = u64::from_le_bytes(name::SHARED);
    ring::call(Operation::Send, memory, &[process, 0, rights, shared]).map(drop)
}

/// A handle that is moved is the receiver's alone.
fn moved(memory: u64, process: u64) {
    let few = rights::READ | rights::MAP | rights::TRANSFER;
    let Ok([handle, _]) = ring::call(Operation::Duplicate, memory, &[few]) else {
        return check("a handle is duplicated with fewer rights", false);
    };
    let send = |rights: u64| ring::call(Operation::Send, handle, &[process, 1, rights, MOVED]).map(drop);
    equal("no more rights can be sent than there are", send(rights::MAP | rights::WRITE), Err(Errno::ACCES));
    equal("a handle that could not be sent is as it was", ring::call(Operation::Info, handle, &[]), Ok([COUNT, few]));
    equal("a handle is moved with fewer rights", send(rights::READ | rights::MAP), Ok(()));
    equal("what was moved is the sender's no more", ring::call(Operation::Info, handle, &[]), Err(Errno::BADF));
}

/// What the child finds the moved handle by.
const MOVED: u64 = u64::from_le_bytes(*b"moved\0\0\0");

/// Memory in one piece, and a part of it.
fn runs(frames: u64) {
    let Ok([memory, _]) = ring::call(Operation::Allocate, frames, &[16, 1]) else {
        return check("memory in one run is allocated", false);
    };
    let slice = ring::call(Operation::Slice, memory, &[4, 2, rights::READ | rights::WRITE | rights::MAP]);
    equal("a slice outlives the handle that it was made from", release(memory), Ok(()));
    let Ok([slice, _]) = slice else { return check("memory is sliced", false) };
    equal("a slice has its own pages", ring::call(Operation::Info, slice, &[]).map(|[pages, _]| pages), Ok(2));
    equal("a slice has no others", map(slice, [1, 2], prot::READ_WRITE).map(drop), Err(Errno::INVAL));
    let filled = map(slice, [0, 2], prot::READ_WRITE).map(|pages| {
        let was_zero = pages.is_zero();
        pages.fill(3);
        was_zero && pages.holds(3)
    });
    equal("a slice is zeros and can be stored to", filled, Ok(true));
    equal("a slice is released while it is mapped", release(slice), Ok(()));
    equal(
        "no more frames are allocated than there are",
        ring::call(Operation::Allocate, frames, &[1 << 30, 0]),
        Err(Errno::NOMEM),
    );
    equal(
        "no run of frames is longer than memory",
        ring::call(Operation::Allocate, frames, &[1 << 30, 1]),
        Err(Errno::NOMEM),
    );
}
