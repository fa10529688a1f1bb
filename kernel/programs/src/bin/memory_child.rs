//! Is handed memory by its parent, stores to it, and may do no more than that.
#![no_std]
#![no_main]

use pagewarden_kernel_abi::{Operation, name};
use runtime::given::rights;
use runtime::handover::{CHILDS, COUNT, PARENTS};
use runtime::linux::{Errno, Result, prot};
use runtime::{Pages, Start, check, equal, given, ring};

runtime::program!(main);

fn main(_start: &Start) {
    let shared = given::find(name::SHARED);
    let Some(shared) = shared else { return check("the memory is in the child's set", false) };
    equal("what the child was given is said to be memory", shared.interface, given::interface::MEMORY);
    equal("the child has the rights that were sent", shared.rights, rights::READ | rights::WRITE | rights::MAP);
    check("the parent's other capabilities are not there", given::count() == 3 && given::find(name::FRAMES).is_none());
    match map(shared.handle, prot::READ_WRITE) {
        Ok(pages) => use_shared(shared.handle, pages),
        Err(errno) => equal("the child maps the memory", Err(errno), Ok(())),
    }
    use_moved(given::handle(*b"moved\0\0\0"));
}

fn map(memory: u64, prot: u64) -> Result<Pages> {
    let [start, _] = ring::call(Operation::Map, memory, &[0, COUNT, prot, 0])?;
    // SAFETY: the addresses were nobody's, and the memory is meant to be changed by others.
    Ok(unsafe { Pages::at(start, COUNT) })
}

fn unmap(memory: u64, pages: Pages) -> Result<()> {
    ring::call(Operation::Unmap, memory, &[pages.start(), COUNT]).map(drop)
}

fn use_shared(memory: u64, pages: Pages) {
    check("the child sees what its parent has stored", pages.holds(PARENTS));
    equal("the child may not run it", map(memory, prot::READ | prot::EXEC).map(drop), Err(Errno::ACCES));
    equal("mprotect does not let the child run it", pages.protect(prot::READ | prot::EXEC), Err(Errno::ACCES));
    let more = ring::call(Operation::Duplicate, memory, &[rights::READ | rights::TRANSFER]);
    equal("the child cannot give itself the right to hand it on", more, Err(Errno::ACCES));
    pages.fill(CHILDS);
    equal("the child unmaps what it has mapped", unmap(memory, pages), Ok(()));
}

/// What was moved can be read and no more.
fn use_moved(memory: u64) {
    equal(
        "the child may not store to what it may only read",
        map(memory, prot::READ_WRITE).map(drop),
        Err(Errno::ACCES),
    );
    let Ok(pages) = map(memory, prot::READ) else { return check("the child maps what was moved to it", false) };
    check("what was moved is the same memory", pages.holds(CHILDS));
    let protect = ring::call(Operation::Protect, memory, &[pages.start(), COUNT, prot::READ_WRITE]);
    equal("the child cannot give itself the right to store there", protect, Err(Errno::ACCES));
    equal("mprotect does not let the child store there", pages.protect(prot::READ_WRITE), Err(Errno::ACCES));
    equal("what was moved is unmapped", unmap(memory, pages), Ok(()));
}
