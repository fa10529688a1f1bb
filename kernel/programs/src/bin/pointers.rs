//! Calls that are handed bad pointers, and registers as no program should have them.
#![no_std]
#![no_main]

use core::arch::asm;

use pagewarden_kernel_abi::{Operation, name};
use runtime::linux::{self, Child, Ended, Errno, Result, end_of, map, number, prot};
use runtime::{PAGE, Pages, Start, check, equal, given, kernel, ring};

runtime::program!(main);

const SET_TID_ADDRESS: u64 = 218;
const PROCESS_MADVISE: u64 = 440;

/// The first address that cannot be.
const NOT_CANONICAL: u64 = 0x8000_0000_0000;
/// Where Linux lets no page be, right below.
const LAST_PAGE: u64 = NOT_CANONICAL - PAGE;

fn main(_start: &Start) {
    let Ok(places) = Places::new() else { return check("there are pages to point to", false) };
    reads(&places);
    statuses(&places);
    vectors(&places);
    segment_base();
    registers();
    check("the program is as it was after all that", places.good.load(0) == GREETING && linux::process_id() > 0);
    names(&places);
}

/// What is written where a range ends in a hole: its first bytes may well come out.
const GREETING: u64 = u64::from_le_bytes(*b"......\n\0");
/// How many bytes come out then.
const GREETING_BYTES: u64 = 7;

/// What pointers point to.
struct Places {
    /// A page to be read and written, with a hole behind it.
    good: Pages,
    hole: Pages,
    read_only: Pages,
    no_rights: Pages,
}

impl Places {
    fn new() -> Result<Self> {
        let both = Pages::map(2, prot::READ_WRITE)?;
        let (good, hole) = (both.part(0, 1), both.part(1, 1));
        let (read_only, no_rights) = (Pages::map(1, prot::READ)?, Pages::map(1, prot::NONE)?);
        // Last, so that nothing is put there.
        hole.unmap()?;
        good.store(0, GREETING);
        // Moved to the end, so that what follows the seven bytes is the hole.
        good.store(PAGE - 8, GREETING << 8);
        Ok(Self { good, hole, read_only, no_rights })
    }

    /// Where nothing can be read.
    fn unreadable(&self) -> [u64; 7] {
        [0, PAGE, kernel::CODE, kernel::MEMORY, NOT_CANONICAL, self.hole.start(), self.no_rights.start()]
    }

    /// Where nothing can be written, except that null says that nothing is to be.
    fn unwritable(&self) -> [u64; 7] {
        let [_, addresses @ ..] = self.unreadable();
        let [a, b, c, d, e, f] = addresses;
        [a, b, c, d, e, f, self.read_only.start()]
    }
}

/// Makes a call that a bad pointer is given to.
fn call(number: u64, arguments: &[u64]) -> Result<u64> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: where these calls may write is null, or in `Places`, or a hole.
    unsafe { linux::call(number, all) }
}

fn reads(places: &Places) {
    let write = |from: u64, len: u64| call(number::WRITE, &[1, from, len]);
    let answers = places.unreadable().map(|from| write(from, 16));
    equal("nothing is written from where nothing can be read", answers, [Err(Errno::FAULT); 7]);
    let edge = places.hole.start() - GREETING_BYTES;
    let ends_there = |answer| matches!(answer, Err(Errno::FAULT | Errno::INVAL) | Ok(GREETING_BYTES));
    check("a text that ends in a hole is cut off or refused", ends_there(write(edge, 4000)));
    check("a text of almost all bytes that there are is cut off or refused", ends_there(write(edge, u64::MAX - PAGE)));
    check("a text that ends before its start is cut off or refused", ends_there(write(edge, u64::MAX - 1)));
    equal("no bytes can be written from null", write(0, 0), Ok(0));
    let vectors = places.unreadable().map(|vector| call(PROCESS_MADVISE, &[u64::MAX, vector, 1, 4, 0]));
    equal("no list of ranges is read where nothing can be read", vectors, [Err(Errno::FAULT); 7]);
}

fn statuses(places: &Places) {
    let mut answers = [Ok(0); 7];
    for (answer, place) in answers.iter_mut().zip(places.unwritable()) {
        let id = Child::run(|| 3).map_or(u64::MAX, |child| child.id());
        *answer = call(number::WAIT4, &[id, place]);
        // Linux has forgotten the child by then; a kernel may as well keep it for another try.
        let again = call(number::WAIT4, &[id, 0]);
        check_again(again, id);
    }
    equal("no status comes where nothing can be written", answers, [Err(Errno::FAULT); 7]);
    let good = places.good.start() + 8;
    let id = Child::run(|| 3).map_or(u64::MAX, |child| child.id());
    equal("a status comes where it should", call(number::WAIT4, &[id, good]), Ok(id));
    equal("a status says how the child ended", places.good.load(8), 3 << 8);
}

/// Says so if a child that was waited for in vain is in a third state.
fn check_again(again: Result<u64>, id: u64) {
    if again != Ok(id) && again != Err(Errno::CHILD) {
        equal("a child is there or it is not", again, Ok(id));
    }
}

fn vectors(places: &Places) {
    let Ok(pages) = Pages::map(8, prot::READ_WRITE) else { return check("there are pages to ask for", false) };
    let mincore = |vector: u64| call(number::MINCORE, &[pages.start(), 8 * PAGE, vector]);
    equal(
        "mincore writes nothing where nothing can be written",
        places.unwritable().map(mincore),
        [Err(Errno::FAULT); 7],
    );
    equal("mincore does not write across the edge of a hole", mincore(places.hole.start() - 1), Err(Errno::FAULT));
    equal("mincore writes up to the edge of a hole", mincore(places.hole.start() - 8), Ok(0));
    equal("mincore says that nothing was touched", places.good.load(PAGE - 8), 0);
    let kernel =
        [kernel::CODE, kernel::MEMORY].map(|from| call(number::MINCORE, &[from, PAGE, places.good.start() + 8]));
    equal("mincore tells nothing of the kernel", kernel, [Err(Errno::NOMEM); 2]);
}

/// Registers that hold addresses, loaded with addresses that would make the kernel fault.
fn segment_base() {
    let set = |base: u64| call(number::ARCH_PRCTL, &[linux::SET_FS, base]);
    equal(
        "thread-local storage cannot be in the kernel",
        [kernel::CODE, kernel::MEMORY].map(set),
        [Err(Errno::PERM); 2],
    );
    equal("thread-local storage cannot be where no address is", set(NOT_CANONICAL), Err(Errno::PERM));
    let flags = map::PRIVATE | map::ANONYMOUS | map::FIXED;
    let last = call(number::MMAP, &[LAST_PAGE, PAGE, prot::READ | prot::EXEC, flags, u64::MAX, 0]);
    equal("no call can be made from the last page of all", last, Err(Errno::NOMEM));
    let ended = [0, kernel::CODE, NOT_CANONICAL].map(|place| {
        end_of(|| {
            _ = call(SET_TID_ADDRESS, &[place]);
            0
        })
    });
    equal("a bad place for a thread's number harms nobody", ended, [Ok(Ended::Exited(0)); 3]);
}

/// The flag that makes strings go backwards.
const DIRECTION: u64 = 1 << 10;
/// The flag that says that a task is nested, which a return from an interrupt believes.
const NESTED: u64 = 1 << 14;
/// The flag that allows access to the other side's pages in a kernel.
const ALIGNMENT: u64 = 1 << 18;

fn registers() {
    let stacks = [0, kernel::CODE, NOT_CANONICAL, kernel::MEMORY + 8].map(|stack| end_of(|| call_on_stack(stack)));
    equal("a call needs no stack of the program", stacks, [Ok(Ended::Exited(9)); 4]);
    let flags = [DIRECTION, NESTED, ALIGNMENT].map(|flag| end_of(|| call_with_flag(flag)));
    equal("a call does not mind the program's flags", flags, [Ok(Ended::Exited(9)); 3]);
}

/// Makes calls while the stack pointer is `stack`; exits with 9.
fn call_on_stack(stack: u64) -> u8 {
    // SAFETY: it does not return, and touches no memory.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "mov eax, {getpid}",
            "syscall",
            "mov eax, {sched_yield}",
            "syscall",
            "mov edi, 9",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            stack = in(reg) stack,
            getpid = const number::GETPID,
            sched_yield = const number::SCHED_YIELD,
            exit_group = const number::EXIT_GROUP,
            options(noreturn),
        )
    }
}

/// Makes calls while `flag` is set; exits with 9.
fn call_with_flag(flag: u64) -> u8 {
    let status = 0_u32;
    // SAFETY: it does not return; wait4(2) finds no child and writes nothing.
    unsafe {
        asm!(
            "pushfq",
            "or qword ptr [rsp], {flag}",
            "popfq",
            "mov eax, {getpid}",
            "syscall",
            "mov eax, {sched_yield}",
            "syscall",
            "mov eax, {wait4}",
            "mov rdi, -1",
            "xor edx, edx",
            "xor r10d, r10d",
            "syscall",
            "mov edi, 9",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            flag = in(reg) flag,
            in("rsi") &raw const status,
            getpid = const number::GETPID,
            sched_yield = const number::SCHED_YIELD,
            wait4 = const number::WAIT4,
            exit_group = const number::EXIT_GROUP,
            options(noreturn),
        )
    }
}

/// Names of programs, which are read out of the memory of whoever asks.
fn names(places: &Places) {
    let spawner = given::handle(name::SPAWNER);
    let spawn = |name: u64, len: u64| ring::call(Operation::Spawn, spawner, &[name, len, 0]).map(drop);
    let answers = places.unreadable().map(|name| spawn(name, 5));
    equal("no program's name is read where nothing can be read", answers, [Err(Errno::FAULT); 7]);
    equal("no program's name is read that ends in a hole", spawn(places.hole.start() - 2, 5), Err(Errno::FAULT));
    check("no program's name is longer than all memory", spawn(places.good.start(), u64::MAX).is_err());
    equal("there is no program of this name", spawn(places.good.start(), 6), Err(Errno::NOENT));
    equal("the ring is as it was after all that", ring::call(Operation::Nothing, 0, &[]), Ok([0, 0]));
}
