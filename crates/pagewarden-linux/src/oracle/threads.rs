//! Threads of a program's process, and children that share its memory, made with clone(2) alone.
//!
//! A thread has a stack of the interpreter's and waits for orders; the thread that gives one waits until it is carried
//! out, so that but for [`Call::Storm`](super::Call) one thread runs at a time. Threads share the first one's
//! thread-local storage: during a storm they use none.

use std::arch::asm;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::outcome::Outcome;
use super::program::{PAGE, WINDOW, WINDOW_PAGES};
use super::raw;

/// Threads besides the first.
pub(super) const THREADS: usize = 2;
const STACK_BYTES: usize = 256 << 10;
/// Calls that each thread makes in a storm.
const STORM_CALLS: u64 = 24;
/// Pages of the place that each thread has for itself in a storm.
const STORM_PAGES: u64 = 16;
/// What makes a thread of the same process.
const THREAD_FLAGS: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

const IDLE: u32 = 0;
const ORDERED: u32 = 1;
const DONE: u32 = 2;

/// What a thread is told to do, and where it says that it has.
#[derive(Debug, Default)]
struct Mailbox {
    state: AtomicU32,
    work: AtomicPtr<c_void>,
    run: AtomicPtr<c_void>,
}

/// The threads of this process; they are made when the first is needed.
#[derive(Debug)]
pub(super) struct Threads {
    mailboxes: Vec<Mailbox>,
    stacks: Vec<Vec<u8>>,
    started: bool,
}

/// Work for another thread.
type Work = extern "C" fn(*mut c_void);

impl Threads {
    /// With all the memory that they will need.
    pub(super) fn new() -> Self {
        Self {
            mailboxes: (0..THREADS).map(|_| Mailbox::default()).collect(),
            // One more for a child that shares memory.
            stacks: (0..=THREADS).map(|_| vec![1; STACK_BYTES]).collect(),
            started: false,
        }
    }

    /// Takes note that this process is a child, which has but the one thread.
    pub(super) fn forget(&mut self) {
        self.started = false;
    }

    /// Has thread `which` call `work` with `argument`, and waits until it has. False if there are no threads to be
    /// had.
    ///
    /// # Safety
    /// `argument` is what `work` takes, and nobody else uses it meanwhile.
    pub(super) unsafe fn run(&mut self, which: usize, work: Work, argument: *mut c_void) -> bool {
        if !self.start() {
            return false;
        }
        let mailbox = &self.mailboxes[which % THREADS];
        post(mailbox, work, argument);
        settle(mailbox);
        true
    }

    /// Has all threads call `work` at once, each with its own of `arguments`.
    ///
    /// # Safety
    /// As for [`Self::run`]; and `work` uses no thread-local storage.
    unsafe fn run_all(&mut self, work: Work, arguments: &mut [[u64; 2]; THREADS]) -> bool {
        if !self.start() {
            return false;
        }
        for (mailbox, argument) in self.mailboxes.iter().zip(arguments) {
            post(mailbox, work, ptr::from_mut(argument).cast());
        }
        self.mailboxes.iter().for_each(settle);
        true
    }

    fn start(&mut self) -> bool {
        if self.started {
            return true;
        }
        for (mailbox, stack) in self.mailboxes.iter().zip(&mut self.stacks) {
            mailbox.state.store(IDLE, Ordering::Relaxed);
            let argument = ptr::from_ref(mailbox).cast_mut().cast();
            // SAFETY: the stack and the mailbox are the thread's as long as this process lives.
            if unsafe { clone_onto(THREAD_FLAGS, stack, serve, argument) } < 0 {
                return false;
            }
        }
        self.started = true;
        true
    }

    /// Makes a child in the same memory that calls `work`, which does not return, and waits until it has ended or
    /// executed something. Its process number, or a negative error.
    ///
    /// # Safety
    /// As for [`Self::run`].
    pub(super) unsafe fn vfork(stack: &mut [u8], work: Work, argument: *mut c_void) -> libc::pid_t {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: nobody else uses the stack, says the borrow, and the child is gone when this returns.
        unsafe { clone_onto(flags, stack, work, argument) }
    }

    /// The stack for such a child, given away for the time of its life.
    pub(super) fn take_stack(&mut self) -> Vec<u8> {
        self.stacks.pop().unwrap_or_default()
    }

    /// Gives it back.
    pub(super) fn return_stack(&mut self, stack: Vec<u8>) {
        self.stacks.push(stack);
    }

    /// Both threads make calls at once, each in its own place; a hash of what they were answered.
    pub(super) fn storm(&mut self, seed: u64) -> Outcome {
        let mut orders = [[seed, 0], [seed, 1]];
        // SAFETY: each thread has an order of its own, and makes raw calls only.
        if !unsafe { self.run_all(storm, &mut orders) } {
            return Outcome::Skipped;
        }
        Outcome::Bytes { count: 2 * STORM_CALLS, hash: orders[0][0] ^ orders[1][0].rotate_left(32) }
    }
}

fn post(mailbox: &Mailbox, work: Work, argument: *mut c_void) {
    mailbox.work.store(work as *mut c_void, Ordering::Relaxed);
    mailbox.run.store(argument, Ordering::Relaxed);
    change(&mailbox.state, ORDERED);
}

fn settle(mailbox: &Mailbox) {
    wait_until(&mailbox.state, DONE);
    mailbox.state.store(IDLE, Ordering::Relaxed);
}

/// The life of a thread.
extern "C" fn serve(mailbox: *mut c_void) {
    // SAFETY: the mailbox lives as long as the process, and has atomics only.
    let mailbox = unsafe { &*mailbox.cast::<Mailbox>() };
    loop {
        wait_until(&mailbox.state, ORDERED);
        let work = mailbox.work.load(Ordering::Relaxed);
        // SAFETY: only `post` writes there, and it writes a function of this type.
        let work = unsafe { std::mem::transmute::<*mut c_void, Work>(work) };
        work(mailbox.run.load(Ordering::Relaxed));
        change(&mailbox.state, DONE);
    }
}

fn change(state: &AtomicU32, to: u32) {
    state.store(to, Ordering::Release);
    let wake = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG).cast_unsigned().into();
    // SAFETY: wakes who waits; touches no memory.
    unsafe { raw::syscall(libc::SYS_futex, [state.as_ptr() as u64, wake, 1, 0, 0, 0]) };
}

fn wait_until(state: &AtomicU32, wanted: u32) {
    let wait = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG).cast_unsigned().into();
    loop {
        let now = state.load(Ordering::Acquire);
        if now == wanted {
            return;
        }
        // SAFETY: the kernel reads the word.
        unsafe { raw::syscall(libc::SYS_futex, [state.as_ptr() as u64, wait, now.into(), 0, 0, 0]) };
    }
}

/// Maps, protects and unmaps in the place of thread `order[1]`; leaves a hash of the answers in `order[0]`.
extern "C" fn storm(order: *mut c_void) {
    // SAFETY: `storm` of [`Threads`] passes an order that is this thread's alone.
    let order = unsafe { &mut *order.cast::<[u64; 2]>() };
    let [mut word, part] = *order;
    let place = WINDOW + WINDOW_PAGES * PAGE + (1 + part) * (4 << 20);
    let mut hash = 0;
    for _ in 0..STORM_CALLS {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [start, pages, what] = [word >> 33, word >> 41, word >> 49].map(|bits| bits & 7);
        let (addr, len) = (place + start * PAGE, (1 + pages) * PAGE);
        debug_assert!(start + 1 + pages <= STORM_PAGES);
        let fixed = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED).cast_unsigned().into();
        let (number, third) = match what {
            0..=2 => (libc::SYS_mmap, 3),
            3..=4 => (libc::SYS_mprotect, 1),
            5 => (libc::SYS_mprotect, 3),
            6 => (libc::SYS_madvise, 4),
            _ => (libc::SYS_munmap, 0),
        };
        let args =
            if number == libc::SYS_mmap { [addr, len, third, fixed, u64::MAX, 0] } else { [addr, len, third, 0, 0, 0] };
        // SAFETY: the place is free when a process starts, and lies apart from the interpreter's own memory.
        let answer = match unsafe { raw::syscall(number, args) } {
            Outcome::Value(value) => value,
            Outcome::Error(errno) => u64::from(errno.cast_unsigned()) | 1 << 63,
            _ => 0,
        };
        hash = (hash ^ answer).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    order[0] = hash;
}

/// clone(2) onto `stack`, where the child calls `work`, which does not return.
///
/// # Safety
/// `stack` stays the child's as long as it lives, and `argument` is what `work` takes.
unsafe fn clone_onto(flags: libc::c_int, stack: &mut [u8], work: Work, argument: *mut c_void) -> libc::pid_t {
    let top = (stack.as_mut_ptr_range().end as u64) & !15;
    let answer: i64;
    // SAFETY: the parent goes on behind the block with nothing changed; the child has a stack of its own and never
    // comes back from `work`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone => answer,
            in("rdi") u64::from(flags.cast_unsigned()),
            in("rsi") top,
            in("rdx") 0_u64,
            in("r10") 0_u64,
            in("r8") 0_u64,
            in("r12") work,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    libc::pid_t::try_from(answer).unwrap_or(-1)
}
