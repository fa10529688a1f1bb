//! What a thread's trap means: a fault that the pager answers, a call, or the end of the process.

mod endpoint;
mod linux;
mod objects;
mod ring;

pub(crate) use endpoint::Endpoint;
pub(crate) use objects::Spawner;
pub(crate) use ring::Ring;

use core::fmt;

use pagewarden::manager::{Access, Signal, SignalCode};
use pagewarden::pager::Fault;
use pagewarden::{Errno, VirtAddr};
use pagewarden_kernel_abi as abi;

use crate::process::Thread;
use crate::schedule::Next;
use crate::trap::vector;
use crate::{interrupt, mmu, transcript};

/// What a thread remembers of a call that waits.
#[derive(Debug, Default)]
pub(crate) struct CallInProgress {
    /// Submissions that this call has taken so far.
    taken: u32,
    /// A call on an endpoint that has not been answered.
    asked: Option<endpoint::Asked>,
}

/// Runs the thread until it traps, and does what it asks for. A call that waits is tried again instead.
pub(crate) fn step(thread: &mut Thread) -> Next {
    if thread.in_progress.is_some() {
        return call(thread);
    }
    thread.context.run();
    match thread.context.vector {
        vector::SYSCALL => call(thread),
        vector::PAGE_FAULT => page_fault(thread),
        vector::TIMER => {
            interrupt::timer();
            Next::Yield
        }
        vector::SHOOT_DOWN => {
            mmu::forget_as_asked();
            Next::Run
        }
        vector::WAKE => {
            interrupt::end();
            Next::Run
        }
        vector::SPURIOUS => Next::Run,
        exception => raise(thread, exception),
    }
}

fn call(thread: &mut Thread) -> Next {
    match thread.context.rax {
        abi::RING_ENTER => ring::enter(thread),
        _ => linux::call(thread),
    }
}

/// An error as a call answers it.
fn negative(errno: Errno) -> i64 {
    -i64::from(errno.raw())
}

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const RESERVED: u64 = 1 << 3;
const FETCH: u64 = 1 << 4;

fn page_fault(thread: &mut Thread) -> Next {
    let (error, address) = (thread.context.error, thread.context.address);
    assert!(error & USER != 0 && error & RESERVED == 0, "error code {error:#x} at {address:#x}");
    let access = match error {
        _ if error & FETCH != 0 => Access::Execute,
        _ if error & WRITE != 0 => Access::Write,
        _ => Access::Read,
    };
    match thread.memory().space().fault(VirtAddr::new(address), access) {
        Ok(()) => Next::Run,
        Err(fault) => kill_for(thread, fault, access),
    }
}

/// Kills the process for an access that cannot be.
fn kill_for(thread: &Thread, fault: Fault, access: Access) -> Next {
    let verb = match access {
        Access::Read => "reading",
        Access::Write => "writing",
        Access::Execute => "executing",
    };
    let is_there = if thread.context.error & PRESENT != 0 { ", which is there" } else { "" };
    let at = thread.context.address;
    match fault {
        Fault::Signal(signal) => {
            let name = match signal.signal {
                Signal::Segv => "SIGSEGV",
                Signal::Bus => "SIGBUS",
            };
            let code = match signal.code {
                SignalCode::MapErr => "MAPERR",
                SignalCode::AccErr => "ACCERR",
                SignalCode::PkuErr => "PKUERR",
                SignalCode::AdrErr => "ADRERR",
                SignalCode::Kernel => "not an address",
            };
            let number = signal.signal.raw().unsigned_abs();
            kill(thread, number, format_args!("{name} ({code}) {verb} {at:#x}{is_there}"))
        }
        Fault::OutOfMemory => kill(thread, SIGKILL, format_args!("out of memory {verb} {at:#x}")),
    }
}

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGFPE: u32 = 8;
const SIGKILL: u32 = 9;
const SIGSEGV: u32 = 11;

/// Kills the process for an exception that is no page fault.
fn raise(thread: &Thread, exception: u64) -> Next {
    let (signal, name) = match exception {
        vector::DIVIDE | vector::FLOATING_POINT | vector::SIMD => (SIGFPE, "SIGFPE"),
        vector::INVALID_OPCODE => (SIGILL, "SIGILL"),
        vector::DEBUG | vector::BREAKPOINT => (SIGTRAP, "SIGTRAP"),
        vector::ALIGNMENT => (SIGBUS, "SIGBUS"),
        vector::DOUBLE_FAULT | vector::NON_MASKABLE | vector::MACHINE_CHECK => {
            panic!("trap {exception} in user code at {:#x}", thread.context.rip)
        }
        _ => (SIGSEGV, "SIGSEGV"),
    };
    kill(thread, signal, format_args!("{name} (exception {exception})"))
}

fn kill(thread: &Thread, signal: u32, why: fmt::Arguments<'_>) -> Next {
    let Thread { process, context, .. } = thread;
    transcript::note_of(&process.name, format_args!("killed: {why} at {:#x}", context.rip));
    process.end(u64::from(signal));
    Next::End
}
