//! Threads that change the memory which others of their process use.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagewarden_kernel_abi::{Operation, name};
use runtime::linux::{self, DONT_NEED, Ended, Errno, Result, SEGMENT, end_of, number, prot};
use runtime::threads::{spawn, wait_until};
use runtime::{PAGE, Pages, Start, check, equal, given, ring};

runtime::program!(main);

const PROCESS_MADVISE: u64 = 440;
const MAY_MOVE: u64 = 1;
const MOVE_TO: u64 = 2;

/// How many threads are still at work.
static AT_WORK: AtomicU64 = AtomicU64::new(0);
/// Whether they are to end.
static STOP: AtomicBool = AtomicBool::new(false);

fn main(_start: &Start) {
    counter();
    registers();
    stores();
    ends();
    pointers();
}

/// Starts a thread that says when it has ended.
fn start(body: extern "C" fn(u64), argument: u64) -> bool {
    AT_WORK.fetch_add(1, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    spawn(body, argument).is_ok()
}

/// Tells threads to end, and waits until they have.
fn stop() -> bool {
    STOP.store(true, Ordering::Relaxed);
    all_ended()
}

fn all_ended() -> bool {
    wait_until(|| AT_WORK.load(Ordering::Acquire) == 0)
}

fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

fn ended() {
    AT_WORK.fetch_sub(1, Ordering::Release);
}

static COUNTER: AtomicU64 = AtomicU64::new(0);
static THREAD: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(rounds: u64) {
    for _ in 0..rounds {
        COUNTER.fetch_add(1, Ordering::Relaxed);
    }
    THREAD.fetch_max(linux::thread_id(), Ordering::Relaxed);
    ended();
}

fn counter() {
    const ROUNDS: u64 = 20_000;
    let started = [(); 2].map(|()| start(count, ROUNDS));
    equal("two threads start", started, [true; 2]);
    check("both threads come to an end", all_ended());
    equal("together they have counted to 40000", COUNTER.load(Ordering::Relaxed), 2 * ROUNDS);
    let thread = THREAD.load(Ordering::Relaxed);
    check("a thread has a number of its own", thread != 0 && thread != linux::process_id());
}

/// Registers of the thread that were found to hold what it had not put there.
static CHANGED: AtomicU64 = AtomicU64::new(0);

/// Keeps values in registers of all kinds for long times, without any call. The one to keep is in the page at `address`.
extern "C" fn keep(address: u64) {
    // SAFETY: `Pages` of the thread that has started this one are there, and nothing else.
    let page = unsafe { Pages::at(address, 1) };
    let value = page.load(0);
    // SAFETY: nothing of this program is in thread-local storage.
    let set = unsafe { linux::call(number::ARCH_PRCTL, [linux::SET_FS, address, 0, 0, 0, 0]) };
    let mut changed = u64::from(set.is_err());
    while !is_stopped() {
        let [low, high, general, local]: [u64; 4];
        // SAFETY: it changes nothing but the registers that it names, and loads from the page.
        unsafe {
            asm!(
                "movq xmm0, {value}",
                "movq xmm15, {value}",
                "mov r13, {value}",
                "2:",
                "dec {rounds}",
                "jnz 2b",
                "movq {low}, xmm0",
                "movq {high}, xmm15",
                "mov {local}, fs:[0]",
                value = in(reg) value,
                rounds = inout(reg) 50_000_u64 => _,
                low = out(reg) low,
                high = out(reg) high,
                local = out(reg) local,
                out("r13") general,
                out("xmm0") _,
                out("xmm15") _,
                options(nostack),
            );
        }
        changed += [low, high, general, local].into_iter().filter(|found| *found != value).count() as u64;
    }
    CHANGED.fetch_add(changed, Ordering::Relaxed);
    ended();
}

/// More threads than processors, none of which ever lets go by itself.
fn registers() {
    const THREADS: u64 = 5;
    let Ok(pages) = Pages::map(THREADS, prot::READ_WRITE) else {
        return check("there is a page for each thread", false);
    };
    let started = (0..THREADS).filter(|number| {
        let page = pages.part(*number, 1);
        page.store(0, 0x0101_0101_0101_0101 * (number + 1));
        start(keep, page.start())
    });
    equal("five threads start that make no calls", started.count(), 5);
    for _ in 0..10 {
        linux::yield_now();
    }
    check("they do not keep a sixth from telling them to end", stop());
    equal("each has found its own values in its registers", CHANGED.load(Ordering::Relaxed), 0);
}

/// Stores ever larger numbers to the page at `address`.
extern "C" fn store(address: u64) {
    // SAFETY: `Pages` of the thread that has started this one are there, and nothing else.
    let page = unsafe { Pages::at(address, 1) };
    let mut number = 1;
    while !is_stopped() {
        page.store(0, number);
        number += 1;
    }
    ended();
}

/// What another processor has noted of a page must not outlast the page.
fn stores() {
    let Ok(page) = Pages::shared(1) else { return check("there is a page to be stored to", false) };
    let Ok(other) = show(page, None) else { return check("a shared page is shown twice", false) };
    check("a thread starts that stores", start(store, page.start()));
    let is_stored = |page: Pages| {
        let before = page.load(0);
        wait_until(|| page.load(0) != before)
    };
    check("what it stores is seen at another address", is_stored(other));
    const ROUNDS: u32 = 40;
    let mut late = 0;
    for _ in 0..ROUNDS {
        let is_replaced = page.map_again(prot::READ_WRITE).is_ok();
        let before = other.load(0);
        late += u32::from(!is_replaced || !is_stored(page) || other.load(0) != before);
        let is_back = show(other, Some(page)).is_ok();
        late += u32::from(!is_back || !is_stored(other));
        if late > 0 {
            break;
        }
    }
    equal("40 times no store reaches a page that was replaced", late, 0);
    frozen(page);
    check("the thread that stores ends when it is told to", stop());
}

/// The pages of a fork stand still, whatever the other threads of the parent store meanwhile.
fn frozen(page: Pages) {
    const FORKS: u32 = 40;
    let is_private = page.map_again(prot::READ_WRITE).is_ok();
    check("the page that is stored to is the process's own", is_private);
    let still = (0..FORKS).filter(|_| {
        let ended = end_of(|| {
            let before = page.load(0);
            for _ in 0..20 {
                linux::yield_now();
            }
            u8::from(page.load(0) != before)
        });
        ended == Ok(Ended::Exited(0))
    });
    equal("40 children have a page that nobody stores to any more", still.count(), FORKS as usize);
}

/// Shows shared `page` a second time, in place of `place` if that is said.
fn show(page: Pages, place: Option<Pages>) -> Result<Pages> {
    let (flags, to) = place.map_or((MAY_MOVE, 0), |place| (MAY_MOVE | MOVE_TO, place.start()));
    // SAFETY: it comes to where nothing is, or to a page that is as good as any.
    let start = unsafe { linux::call(number::MREMAP, [page.start(), 0, PAGE, flags, to, 0]) }?;
    // SAFETY: nothing else refers to it.
    Ok(unsafe { Pages::at(start, 1) })
}

/// Threads end with their process.
fn ends() {
    let Ok(page) = Pages::map(1, prot::READ) else { return check("there is a page that can only be read", false) };
    let killed = end_of(|| {
        start(store, page.start());
        u8::from(all_ended())
    });
    equal("a thread's bad store ends its whole process", killed, Ok(SEGMENT));
    let left = end_of(|| {
        start(leave, 9);
        u8::from(all_ended())
    });
    equal("a thread's exit_group ends its whole process", left, Ok(Ended::Exited(9)));
}

extern "C" fn leave(code: u64) {
    linux::exit_group(u8::try_from(code).unwrap_or(u8::MAX));
}

/// Takes away the page at `address`, or what it holds, or rights to it, again and again.
extern "C" fn change(address: u64) {
    // SAFETY: `Pages` of the thread that has started this one are there, and nothing else.
    let page = unsafe { Pages::at(address, 1) };
    let mut well = true;
    while !is_stopped() {
        well &= page.protect(prot::NONE).is_ok();
        linux::yield_now();
        well &= page.protect(prot::READ_WRITE).is_ok();
        linux::yield_now();
        well &= page.advise(DONT_NEED).is_ok();
        well &= page.unmap().is_ok();
        linux::yield_now();
        well &= page.map_again(prot::READ_WRITE).is_ok();
        linux::yield_now();
    }
    CHANGED_WELL.store(well, Ordering::Relaxed);
    ended();
}

static CHANGED_WELL: AtomicBool = AtomicBool::new(false);

/// What calls gave while the page that they were pointed to came and went.
#[derive(Default)]
struct Answers {
    good: u32,
    fault: u32,
    other: Option<core::result::Result<u64, Errno>>,
}

impl Answers {
    /// Makes calls until both kinds of answer have come often enough. `good` is what it says where the page is there.
    fn of(good: Result<u64>, call: impl Fn() -> Result<u64>) -> Self {
        const ROUNDS: u32 = 20_000;
        const ENOUGH: u32 = 200;
        let mut answers = Self::default();
        for _ in 0..ROUNDS {
            match call() {
                answer if answer == good => answers.good += 1,
                Err(Errno::FAULT) => answers.fault += 1,
                other => answers.other = Some(other),
            }
            if answers.good >= ENOUGH && answers.fault >= ENOUGH {
                break;
            }
            if (answers.good + answers.fault).is_multiple_of(8) {
                linux::yield_now();
            }
        }
        answers
    }

    fn report(&self, [only, seen]: [&str; 2]) {
        equal(only, self.other, None);
        check(seen, self.good > 0 && self.fault > 0);
    }
}

fn pointers() {
    let (Ok(page), Ok(pages)) = (Pages::map(1, prot::READ_WRITE), Pages::map(64, prot::READ_WRITE)) else {
        return check("there are pages to be pointed to", false);
    };
    check("a thread starts that takes a page away and brings it back", start(change, page.start()));
    // SAFETY: where it writes nothing else is, if anything.
    let mincore = || unsafe { linux::call(number::MINCORE, [pages.start(), 64 * PAGE, page.start(), 0, 0, 0]) };
    Answers::of(Ok(0), mincore).report([
        "mincore writes to the page, or says that it cannot",
        "mincore has met the page both present and absent",
    ]);
    // SAFETY: without a process it changes no memory.
    let advise = || unsafe { linux::call(PROCESS_MADVISE, [u64::MAX, page.start(), 1, DONT_NEED, 0, 0]) };
    Answers::of(Err(Errno::BADF), advise).report([
        "process_madvise reads from the page, or says that it cannot",
        "process_madvise has met the page both present and absent",
    ]);
    let spawner = given::handle(name::SPAWNER);
    let spawn = || ring::call(Operation::Spawn, spawner, &[page.start(), 8, 0]).map(|[handle, _]| handle);
    Answers::of(Err(Errno::NOENT), spawn).report([
        "a program's name is read from the page, or said to be out of reach",
        "the name has been met both present and absent",
    ]);
    check("the thread that changes the page ends", stop());
    check("no change of the page was refused", CHANGED_WELL.load(Ordering::Relaxed));
}
