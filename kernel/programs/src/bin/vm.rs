//! Addresses that are reserved, and memory in them that comes and goes; and what the ring makes of nonsense.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use pagewarden_kernel_abi::{Operation, RING, Submission};
use runtime::linux::{Ended, Errno, Result, SEGMENT, end_of, prot};
use runtime::{PAGE, Pages, Start, check, equal, given, ring};

runtime::program!(main);

/// More pages than this program may commit.
const TOO_MANY: u64 = 4096;
/// Added to a handle, that of a slot which was taken again.
const LATER: u64 = 1 << 16;

fn main(_start: &Start) {
    let memory = Memory(given::handle(given::OWN_MEMORY));
    match memory.reserve(32, 0) {
        Ok(pages) => reservation(memory, pages),
        Err(errno) => equal("addresses are reserved", Err(errno), Ok(())),
    }
    places(memory);
    limit(memory);
    handles(memory);
    child(memory);
    batches(memory);
    counts();
}

/// The right to change this process's own memory.
#[derive(Clone, Copy)]
struct Memory(u64);

impl Memory {
    fn reserve(self, pages: u64, address: u64) -> Result<Pages> {
        let [start, _] = ring::call(Operation::Reserve, self.0, &[pages, address])?;
        // SAFETY: the addresses were nobody's.
        Ok(unsafe { Pages::at(start, pages) })
    }

    fn ask(self, operation: Operation, pages: Pages, prot: u64) -> Result<()> {
        ring::call(operation, self.0, &[pages.start(), pages.count(), prot]).map(drop)
    }

    fn commit(self, pages: Pages) -> Result<()> {
        self.ask(Operation::Commit, pages, prot::READ_WRITE)
    }

    fn decommit(self, pages: Pages) -> Result<()> {
        self.ask(Operation::Decommit, pages, 0)
    }

    fn protect(self, pages: Pages, prot: u64) -> Result<()> {
        self.ask(Operation::ProtectReserved, pages, prot)
    }

    fn unreserve(self, pages: Pages) -> Result<()> {
        self.ask(Operation::Unreserve, pages, 0)
    }
}

/// Stores a zero to each page, which has to have a frame then.
fn touch(pages: Pages) {
    (0..pages.count()).for_each(|page| pages.store(page * PAGE, 0));
}

/// How a child ends that loads from `pages`.
fn load(pages: Pages) -> Result<Ended> {
    end_of(|| {
        _ = pages.load(0);
        0
    })
}

/// How a child ends that stores to `pages`.
fn store(pages: Pages) -> Result<Ended> {
    end_of(|| {
        pages.store(0, 1);
        0
    })
}

fn reservation(memory: Memory, pages: Pages) {
    check("what is reserved starts with a page", pages.start() != 0 && pages.start().is_multiple_of(PAGE));
    equal("what is only reserved cannot be touched", load(pages), Ok(SEGMENT));
    let (low, high) = (pages.part(0, 4), pages.part(4, 4));
    equal("eight pages are committed", memory.commit(pages.part(0, 8)), Ok(()));
    // Some are stored to first, others loaded from.
    touch(low);
    (0..4).for_each(|page| _ = high.load(page * PAGE));
    check("committed pages are zeros", low.is_zero() && high.is_zero());
    low.fill(1);
    high.fill(2);
    check("committed pages hold what is stored", low.holds(1) && high.holds(2));
    equal("what is committed cannot be committed", memory.commit(pages.part(7, 2)), Err(Errno::EXIST));

    equal("all rights are taken away", memory.protect(pages.part(0, 8), prot::NONE), Ok(()));
    equal("a page without rights cannot be touched", load(high), Ok(SEGMENT));
    equal("the right to read is given back", memory.protect(pages.part(0, 8), prot::READ), Ok(()));
    check("pages without rights have kept what they held", low.holds(1) && high.holds(2));
    equal("a page that can be read cannot be stored to", store(low), Ok(SEGMENT));
    equal("all rights are given back", memory.protect(pages.part(0, 8), prot::READ_WRITE), Ok(()));

    equal("four pages are decommitted", memory.decommit(low), Ok(()));
    equal("what was decommitted cannot be touched", load(low), Ok(SEGMENT));
    equal("what is not committed cannot be decommitted", memory.decommit(low), Err(Errno::INVAL));
    equal(
        "what is not committed cannot be given rights",
        memory.protect(pages.part(3, 2), prot::READ_WRITE),
        Err(Errno::INVAL),
    );
    equal("what was decommitted is committed again", memory.commit(low), Ok(()));
    touch(low.part(0, 2));
    check("pages that were decommitted are zeros", low.is_zero());
    check("their neighbours hold what they held", high.holds(2));

    equal("half of the addresses are given up", memory.unreserve(pages.part(16, 16)), Ok(()));
    equal("addresses cannot be given up twice", memory.unreserve(pages.part(16, 16)), Err(Errno::INVAL));
    equal("addresses cannot be given up where half are gone", memory.unreserve(pages), Err(Errno::INVAL));
    check("what could not be given up is left alone", low.is_zero() && high.holds(2));
    equal("the other half is given up", memory.unreserve(pages.part(0, 16)), Ok(()));
    equal("what was given up cannot be touched", load(high), Ok(SEGMENT));
}

/// Where nothing can be reserved.
fn places(memory: Memory) {
    let reserve = |pages: u64, address: u64| memory.reserve(pages, address).map(|pages| pages.start());
    equal("nothing can be reserved over the ring", reserve(1, RING), Err(Errno::EXIST));
    equal("nothing can be reserved across the fixed pages", reserve(4, RING - 2 * PAGE), Err(Errno::EXIST));
    equal("nothing can be reserved in the kernel", reserve(1, 0xffff_8000_0000_0000), Err(Errno::NOMEM));
    equal("nothing can be reserved from the middle of a page", reserve(1, RING + 16 * PAGE + 1), Err(Errno::INVAL));
    equal("no page at all cannot be reserved", reserve(0, 0), Err(Errno::INVAL));
    check(
        "more than there are addresses cannot be reserved",
        reserve(u64::MAX, 0).is_err() && reserve(1 << 40, 0).is_err(),
    );
    let near = RING + 16 * PAGE;
    equal("a place that is free can be chosen", reserve(2, near), Ok(near));
    // SAFETY: they were reserved and nothing refers to them.
    let pages = unsafe { Pages::at(near, 2) };
    equal("a place that was chosen is given up", memory.unreserve(pages), Ok(()));
    let set = given::page();
    equal("the capability set is no reservation", memory.unreserve(set), Err(Errno::PERM));
    equal("what Linux has mapped is no reservation", linux_pages(memory), [Err(Errno::INVAL); 3]);
}

/// What becomes of pages of mmap(2) that are taken for reserved ones.
fn linux_pages(memory: Memory) -> [Result<()>; 3] {
    let Ok(pages) = Pages::map(1, prot::READ_WRITE) else { return [Ok(()); 3] };
    let answers = [memory.commit(pages), memory.decommit(pages), memory.unreserve(pages)];
    if pages.unmap().is_ok() { answers } else { [Ok(()); 3] }
}

fn limit(memory: Memory) {
    let Ok(pages) = memory.reserve(TOO_MANY, 0) else { return check("many addresses cost no memory", false) };
    equal("no more can be committed than is allowed", memory.commit(pages), Err(Errno::NOMEM));
    equal("nothing was committed then", load(pages), Ok(SEGMENT));
    equal("what is allowed can be committed", memory.commit(pages.part(0, 16)), Ok(()));
    touch(pages.part(0, 8));
    check("what is committed after a refusal is zeros", pages.part(0, 16).is_zero());
    equal("all of many addresses are given up", memory.unreserve(pages), Ok(()));
    let rounds = (0..64).filter(|_| {
        let committed = memory.reserve(64, 0).and_then(|pages| {
            memory.commit(pages)?;
            pages.fill(3);
            memory.unreserve(pages)
        });
        committed.is_ok()
    });
    equal("memory that was given up can be had again, 64 times", rounds.count(), 64);
}

fn handles(memory: Memory) {
    let reserve = |handle: u64| ring::call(Operation::Reserve, handle, &[1, 0]);
    equal("0 is no handle", reserve(0), Err(Errno::BADF));
    let words = [1, u64::MAX, memory.0 ^ 1, memory.0 + LATER];
    equal("words that nobody gave out are no handles", words.map(reserve), [Err(Errno::BADF); 4]);
    let Ok([endpoint, _]) = ring::call(Operation::Endpoint, 0, &[]) else {
        return check("an endpoint is made", false);
    };
    equal("an endpoint is no address space", reserve(endpoint), Err(Errno::INVAL));
    equal("an address space is no memory", ring::call(Operation::Info, memory.0, &[]), Err(Errno::INVAL));
    equal("an address space is no endpoint", ring::call(Operation::Receive, memory.0, &[]), Err(Errno::INVAL));
    equal("a handle is released", ring::call(Operation::Release, endpoint, &[]), Ok([0, 0]));
    equal("what was released is no handle", ring::call(Operation::Release, endpoint, &[]), Err(Errno::BADF));
    // What comes next may well have its slot.
    let next = ring::call(Operation::Endpoint, 0, &[]).map(drop);
    let stale = next.and_then(|()| reserve(endpoint));
    equal("a released handle stands for nothing", stale, Err(Errno::BADF));
    let more = ring::call(Operation::Duplicate, memory.0, &[given::rights::MAP | given::rights::WRITE]);
    equal("a duplicate has no more rights", more, Err(Errno::ACCES));
    let same = ring::call(Operation::Duplicate, memory.0, &[given::rights::MAP]);
    let pages = same.and_then(|[handle, _]| Memory(handle).reserve(1, 0));
    let released = same.and_then(|[handle, _]| ring::call(Operation::Release, handle, &[]));
    equal("a duplicate with the same rights does the same", released, Ok([0, 0]));
    equal("what a duplicate has reserved stays", pages.and_then(|pages| memory.unreserve(pages)), Ok(()));
    let unknown = [11, 44, u32::MAX].map(|number| ring::call_number(number, memory.0, &[]));
    equal("there are no other operations", unknown, [Err(Errno::NOSYS); 3]);
}

/// A forked child has a ring and an address space of its own.
fn child(memory: Memory) {
    let ended = end_of(|| {
        let own = given::handle(given::OWN_MEMORY);
        let is_stranger = memory.reserve(1, 0).map(drop) == Err(Errno::BADF);
        let commits = Memory(own).reserve(2, 0).and_then(|pages| {
            Memory(own).commit(pages)?;
            pages.fill(4);
            Ok(pages.holds(4))
        });
        u8::from(!(own != memory.0 && is_stranger && commits == Ok(true) && given::count() == 1))
    });
    equal("a child commits memory of its own, with a handle of its own", ended, Ok(Ended::Exited(0)));
}

fn submission(operation: Operation, cookie: u64, handle: u64) -> Submission {
    Submission { operation: operation as u32, cookie, handle, arguments: [0; 5] }
}

fn batches(memory: Memory) {
    // Every second one fails, so that answers can be told apart.
    let wanted = |cookie: u64| (cookie, if cookie.is_multiple_of(2) { 0 } else { -22 });
    let submit = |cookie: u64| {
        let operation = if cookie.is_multiple_of(2) { Operation::Nothing } else { Operation::Info };
        ring::submit(&submission(operation, cookie, memory.0));
    };
    let completed = |cookie: u64| {
        let completion = ring::complete();
        completion.is_some_and(|completion| (completion.cookie, completion.result) == wanted(cookie))
    };
    equal("nothing is taken where nothing was submitted", ring::enter(16), Ok(0));
    (100..116).for_each(submit);
    equal("sixteen submissions are taken at once", ring::enter(16), Ok(16));
    check("their cookies come back in order, each with its answer", (100..116).all(completed));
    equal("there are no other completions", ring::complete(), None);
    (u64::MAX - 2..=u64::MAX).for_each(submit);
    equal("no more are taken than asked for", ring::enter(2), Ok(2));
    equal("the rest is taken later", ring::enter(u64::MAX), Ok(1));
    check("a cookie may be any word", (u64::MAX - 2..=u64::MAX).all(completed));
}

/// Counts that make no sense are refused, and do no harm.
fn counts() {
    let refused = |count: &core::sync::atomic::AtomicU32, by: u32| {
        let right = count.fetch_add(by, Ordering::Relaxed);
        let answer = ring::enter(1);
        count.store(right, Ordering::Relaxed);
        answer
    };
    let more = refused(ring::submitted(), Submission::PLACES + 1);
    equal("more submissions than places are refused", more, Err(Errno::INVAL));
    equal("fewer than were taken are refused", refused(ring::submitted(), u32::MAX), Err(Errno::INVAL));
    equal("more completions read than there are is refused", refused(ring::read(), 1), Err(Errno::INVAL));
    // One is under way, so that there is something to complete.
    let full = |by: u32| {
        ring::submit(&submission(Operation::Nothing, 7, 0));
        let answer = refused(ring::read(), by);
        let later = ring::enter(1);
        (answer, later, ring::complete().map(|completion| completion.cookie))
    };
    equal(
        "more completions unread than places are refused",
        full(33_u32.wrapping_neg()),
        (Err(Errno::INVAL), Ok(1), Some(7)),
    );
    equal("the ring works as before", ring::call(Operation::Nothing, 0, &[]), Ok([0, 0]));
}
