//! One stopped system call of a guest thread, and host calls made in its place.
//!
//! The thread stands at the entry of a call. The first host call uses this entry: only registers change.
//! Each further one sends the thread back to its own `syscall` instruction, one single step from the
//! filter's next stop. A call that the filter lets through is over after that step. At the end all registers
//! are as they were at entry, but for the answer.
//!
//! While more than one host call is made the thread passes through user mode with all signals blocked.
//! `SIGSTOP` and group stops cannot be blocked. A `SIGSTOP` is delivered at once, so that the host knows
//! whether a `SIGCONT` came before or after it; the stop itself is put off and asked for again at the end. A
//! parent may so be told of the stop while the last host calls of the one call are still made.
//!
//! The thread may die at any moment, or be replaced when another thread executes a program: then the call
//! is lost, nothing more is asked of the thread, and the event that told so is left for the main loop.

use std::rc::Rc;

use libc::user_regs_struct;
use pagewarden::Errno;

use super::filter;
use super::ptrace::{self, Stop, Tid, Until};
use super::wait::Events;

/// The numbers that a call returns for errors: `-4095..=-1`.
const ERROR_MIN: u64 = u64::MAX - 4094;
/// `syscall` is two bytes long, whatever prefix it has.
const SYSCALL_LEN: u64 = 2;

/// Where the thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// At the entry of the guest's call; nothing has run.
    Entry,
    /// At the exit of a host call.
    Exit,
    /// Somewhere in user mode, stopped where it should not have been.
    Astray,
    /// It is gone.
    Lost,
}

/// How a thread has come back into a call.
enum Entry {
    /// The filter has stopped it before the call.
    Filter,
    /// The filter has let it through, and this is the result.
    Passed(u64),
}

/// A system call of the guest that waits for its answer.
#[derive(Debug)]
pub(super) struct StoppedCall {
    tid: Tid,
    entry: user_regs_struct,
    /// Where a `syscall` instruction is.
    syscall_at: u64,
    events: Rc<Events>,
    phase: Phase,
    /// Whether registers differ from `entry` apart from `rax`.
    changed: bool,
    /// The guest's own signal mask, while all signals are blocked.
    mask: Option<u64>,
    /// A group stop was cut short.
    interrupt_owed: bool,
}

impl StoppedCall {
    /// Takes over a thread that the filter has stopped; `None` if it is gone by now.
    pub(super) fn new(tid: Tid, events: Rc<Events>) -> Option<Self> {
        let entry = ptrace::registers(tid).ok()?;
        Some(Self::stopped(tid, entry, entry.rip.wrapping_sub(SYSCALL_LEN), events))
    }

    /// Takes over a thread that has come to the end of a call by itself; `syscall_at` is where it finds a
    /// `syscall` instruction, none for the one that it used.
    pub(super) fn at_exit(tid: Tid, events: Rc<Events>, syscall_at: Option<u64>) -> Option<Self> {
        let entry = ptrace::registers(tid).ok()?;
        let syscall_at = syscall_at.unwrap_or(entry.rip.wrapping_sub(SYSCALL_LEN));
        Some(Self { phase: Phase::Exit, ..Self::stopped(tid, entry, syscall_at, events) })
    }

    fn stopped(tid: Tid, entry: user_regs_struct, syscall_at: u64, events: Rc<Events>) -> Self {
        let phase = Phase::Entry;
        Self { tid, entry, syscall_at, events, phase, changed: false, mask: None, interrupt_owed: false }
    }

    /// What the thread would be told without us.
    pub(super) fn own_result(&self) -> Result<u64, Errno> {
        result(self.entry.rax)
    }

    /// The thread.
    pub(super) const fn tid(&self) -> Tid {
        self.tid
    }

    /// The number of the call.
    pub(super) const fn number(&self) -> u64 {
        self.entry.orig_rax
    }

    /// The arguments of the call as the guest gave them.
    pub(super) const fn args(&self) -> [u64; 6] {
        [self.entry.rdi, self.entry.rsi, self.entry.rdx, self.entry.r10, self.entry.r8, self.entry.r9]
    }

    /// Whether the thread is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.phase == Phase::Lost
    }

    /// Whether the guest took the `syscall` instruction away under us: what has run so far cannot be undone.
    pub(super) fn is_astray(&self) -> bool {
        self.phase == Phase::Astray
    }

    /// Makes the thread run host call `number` and gives its result.
    pub(super) fn run(&mut self, number: u64, args: [u64; 6]) -> Result<u64, Errno> {
        let done = match self.phase {
            Phase::Entry => self.run_first(number, args),
            Phase::Exit => self.run_again(number, args),
            Phase::Astray | Phase::Lost => None,
        };
        done.ok_or(Errno::Srch).and_then(result)
    }

    /// Runs the guest's own call as it is.
    pub(super) fn run_unchanged(&mut self) -> Result<u64, Errno> {
        self.run(self.number(), self.args())
    }

    fn run_first(&mut self, number: u64, args: [u64; 6]) -> Option<u64> {
        if number != self.number() || args != self.args() {
            let mut registers = self.entry;
            registers.orig_rax = number;
            set_args(&mut registers, args);
            self.changed = true;
            if ptrace::set_registers(self.tid, &registers).is_err() {
                return self.lose();
            }
        }
        self.run_to_exit()
    }

    fn run_again(&mut self, number: u64, args: [u64; 6]) -> Option<u64> {
        if self.mask.is_none() {
            let Ok(mask) = ptrace::signal_mask(self.tid) else { return self.lose() };
            self.mask = Some(mask);
            if ptrace::set_signal_mask(self.tid, u64::MAX).is_err() {
                return self.lose();
            }
        }
        let mut registers = self.entry;
        registers.rip = self.syscall_at;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        set_args(&mut registers, args);
        self.changed = true;
        if ptrace::set_registers(self.tid, &registers).is_err() {
            return self.lose();
        }
        match self.step_to_entry()? {
            Entry::Filter => self.run_to_exit(),
            Entry::Passed(value) if !filter::always_stops(number) => Some(value),
            // The guest has put another instruction of the same length where `syscall` was.
            Entry::Passed(_) => {
                self.phase = Phase::Astray;
                None
            }
        }
    }

    /// Steps from the `syscall` instruction to the filter's stop, or past a call that it lets through.
    fn step_to_entry(&mut self) -> Option<Entry> {
        let mut signal = 0;
        loop {
            if ptrace::resume(self.tid, Until::Step, signal).is_err() {
                return self.lose();
            }
            let Some(event) = self.events.of(self.tid) else { return self.lose() };
            signal = 0;
            match event.stop {
                Stop::Seccomp => return Some(Entry::Filter),
                Stop::Signal(libc::SIGSTOP) => signal = libc::SIGSTOP,
                Stop::Group(_) | Stop::Trap => self.interrupt_owed = true,
                Stop::Signal(signal) => return self.stepped(signal),
                _ => {
                    self.events.put_back(event);
                    return self.lose();
                }
            }
        }
    }

    fn stepped(&mut self, signal: i32) -> Option<Entry> {
        let Ok(registers) = ptrace::registers(self.tid) else { return self.lose() };
        if signal == libc::SIGTRAP && registers.rip == self.syscall_at.wrapping_add(SYSCALL_LEN) {
            return Some(Entry::Passed(registers.rax));
        }
        // The instruction is not there any more: the guest's own doing.
        self.phase = Phase::Astray;
        None
    }

    /// Lets the call that the thread stands before run to its end.
    fn run_to_exit(&mut self) -> Option<u64> {
        if ptrace::resume(self.tid, Until::Syscall, 0).is_err() {
            return self.lose();
        }
        let Some(event) = self.events.of(self.tid) else { return self.lose() };
        if event.stop != Stop::SyscallExit {
            self.events.put_back(event);
            return self.lose();
        }
        self.phase = Phase::Exit;
        match ptrace::result_register(self.tid) {
            Ok(value) => Some(value),
            Err(_) => self.lose(),
        }
    }

    fn lose<T>(&mut self) -> Option<T> {
        self.phase = Phase::Lost;
        None
    }

    /// Lets the guest's own call run, and stops at the first event: a new child, or its end.
    pub(super) fn run_to_event(&mut self) -> Option<Stop> {
        if ptrace::resume(self.tid, Until::Syscall, 0).is_err() {
            return self.lose();
        }
        let Some(event) = self.events.of(self.tid) else { return self.lose() };
        match event.stop {
            Stop::Cloned | Stop::SyscallExit => {
                self.phase = Phase::Exit;
                Some(event.stop)
            }
            _ => {
                self.events.put_back(event);
                self.lose()
            }
        }
    }

    /// Lets the thread go on in its own call without an answer of ours.
    pub(super) fn release(self, until: Until) {
        if !self.is_lost() {
            // A thread that has died meanwhile says so by its next event.
            let _ = ptrace::resume(self.tid, until, 0);
        }
    }

    /// Gives the guest its answer and lets it go on.
    pub(super) fn answer(self, answer: Result<u64, Errno>) {
        if self.phase == Phase::Lost {
            return;
        }
        let mut registers = self.entry;
        registers.rax = match answer {
            Ok(value) => value,
            Err(errno) => u64::from(errno.raw()).wrapping_neg(),
        };
        // No call: nothing is run at entry, nothing restarted at exit.
        registers.orig_rax = u64::MAX;
        let as_is = self.phase == Phase::Exit
            && !self.changed
            && ptrace::result_register(self.tid).is_ok_and(|value| value == registers.rax);
        if !as_is && ptrace::set_registers(self.tid, &registers).is_err() {
            return;
        }
        // What fails from here on fails because the thread is gone, which its next event tells.
        if let Some(mask) = self.mask {
            let _ = ptrace::set_signal_mask(self.tid, mask);
        }
        if self.interrupt_owed {
            let _ = ptrace::interrupt(self.tid);
        }
        let _ = ptrace::resume(self.tid, Until::Event, 0);
    }
}

fn set_args(registers: &mut user_regs_struct, args: [u64; 6]) {
    [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = args;
}

/// The value or error that a call's result register stands for.
pub(super) fn result(value: u64) -> Result<u64, Errno> {
    if value < ERROR_MIN {
        return Ok(value);
    }
    Err(u16::try_from(value.wrapping_neg()).map_or(Errno::Inval, Errno::from_raw))
}
