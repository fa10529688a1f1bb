//! Who runs: threads that are ready, and threads that wait for something to happen.
//!
//! A thread is in one place at a time, and whoever has it has all of it: a queue, or the processor that runs it. A thread
//! whose call has to wait lies among those that wait, and tries its call again after the next event, whatever that was.
//! Whoever decides to wait has read the count of events before he looked, so that none is missed.
//!
//! Locks: that of the queues, under which nothing else is locked.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Mutex;
use x86_64::instructions::interrupts;

use crate::machine::kernel;
use crate::process::Thread;
use crate::{calls, errand, interrupt, mmu, processor};

#[expect(clippy::vec_box, reason = "threads move from queue to queue, and are large")]
struct Queues {
    ready: VecDeque<Box<Thread>>,
    waiting: Vec<Box<Thread>>,
    events: u64,
}

/// Processors that sleep, or are about to.
static SLEEPING: AtomicUsize = AtomicUsize::new(0);
static QUEUES: Mutex<Queues> = Mutex::new(Queues { ready: VecDeque::new(), waiting: Vec::new(), events: 0 });

/// What becomes of a thread after a trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It goes on.
    Run,
    /// Others come first.
    Yield,
    /// Its call is tried again when there have been more events than these.
    Wait(u64),
    /// It has ended.
    End,
}

/// Has a thread run as soon as its turn comes.
pub(crate) fn add(thread: Box<Thread>) {
    QUEUES.lock().ready.push_back(thread);
    wake();
}

/// Has processors that sleep look again.
fn wake() {
    if SLEEPING.load(Ordering::SeqCst) > 0 {
        interrupt::wake_others();
    }
}

/// How many events there have been.
pub(crate) fn events() -> u64 {
    QUEUES.lock().events
}

/// Something has happened that somebody may wait for.
pub(crate) fn event() {
    let mut queues = QUEUES.lock();
    queues.events += 1;
    let Queues { ready, waiting, .. } = &mut *queues;
    ready.extend(waiting.drain(..));
    drop(queues);
    wake();
}

fn wait(thread: Box<Thread>, seen: u64) {
    let mut queues = QUEUES.lock();
    if queues.events == seen {
        queues.waiting.push(thread);
    } else {
        queues.ready.push_back(thread);
    }
}

/// Runs threads until `done`, which is looked at again after each event.
pub(crate) fn run_until(done: impl Fn() -> bool) {
    loop {
        let seen = events();
        if done() {
            return;
        }
        let next = QUEUES.lock().ready.pop_front();
        match next {
            Some(thread) => run(thread),
            None if errand::take() => {}
            None => sleep(seen),
        }
    }
}

/// Waits for an interrupt, unless there is something to do: a thread, or an event after `seen`. Who brings either sees that
/// somebody sleeps, or is seen here.
fn sleep(seen: u64) {
    SLEEPING.fetch_add(1, Ordering::SeqCst);
    interrupts::disable();
    let queues = QUEUES.lock();
    let is_idle = queues.ready.is_empty() && queues.events == seen;
    drop(queues);
    if is_idle {
        interrupts::enable_and_hlt();
    } else {
        interrupts::enable();
    }
    SLEEPING.fetch_sub(1, Ordering::SeqCst);
}

/// Runs a thread until it gives the processor up, or has to.
fn run(mut thread: Box<Thread>) {
    // SAFETY: the tables of a space show the kernel's half, and stay as long as the thread that is in it.
    unsafe { mmu::load_root(thread.memory().space().root()) };
    let next = loop {
        if thread.process.has_ended() {
            break Next::End;
        }
        match calls::step(&mut thread) {
            Next::Run => {}
            next => break next,
        }
    };
    // SAFETY: the kernel's own tables stay for good.
    unsafe { mmu::load_root(kernel().space.root()) };
    match next {
        Next::Run | Next::Yield => add(thread),
        Next::Wait(seen) => wait(thread, seen),
        Next::End => drop(thread),
    }
}

/// What a processor does that has nothing else to do.
pub(crate) fn run_forever() -> ! {
    run_until(|| false);
    unreachable!("processor {} has stopped", processor::index())
}
