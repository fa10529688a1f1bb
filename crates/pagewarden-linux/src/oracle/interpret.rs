//! Runs a program in this process, with raw system calls, and writes down what each step answered.
//!
//! Between the first step and the last nothing is allocated and no library is asked for memory: the address
//! space is the program's alone, but for what the [`Guard`] keeps out of its reach. One thread at a
//! time.

use std::ffi::c_void;
use std::io::Write as _;
use std::ptr;

use super::accounts;
use super::copies::Copies;
use super::files::Files;
use super::guard::Guard;
use super::kernel::Kernel;
use super::machine::OWN_PROCESS;
use super::outcome::Outcome;
use super::program::{Arg, Base, Call, FileKind, MAX_STEPS, PAGE, Step};
use super::raw;
use super::state;
use super::threads::Threads;

/// The calling thread, as pidfd calls name it without a descriptor.
const PIDFD_SELF_THREAD: i64 = -10_000;
/// Room for what a program answers.
const OUT_ROOM: usize = 2 << 20;
/// Room for a list of regions.
const MAPS_ROOM: usize = 256 << 10;
/// Room for what mincore(2) tells; the guard keeps ranges below this many pages.
const RESIDENCE_ROOM: usize = 4096;

/// Runs programs, one in the life of a process.
#[derive(Debug)]
pub(super) struct Interpreter {
    pub(super) files: Files,
    pub(super) guard: Guard,
    pub(super) kernel: Kernel,
    pub(super) maps: Vec<u8>,
    pub(super) answers: [Option<u64>; MAX_STEPS],
    residence: Vec<u8>,
    pub(super) out: Vec<u8>,
    copies: Copies,
    pub(super) threads: Threads,
    /// Which thread runs the next step, if not the first.
    pub(super) runner: Option<usize>,
    pub(super) company: Company,
    /// Whether this process was made by a step, with memory of its own.
    pub(super) lineage: Lineage,
}

/// Where a process comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lineage {
    /// It is the program's first.
    First,
    /// It has a copy of another's memory.
    Child,
}

/// Whom this process shares its turns or its memory with: then it makes neither children nor threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Company {
    /// Nobody.
    None,
    /// A sibling, a parent or a child.
    Shared,
}

/// A step for another thread.
struct Order {
    interpreter: *mut Interpreter,
    step: Step,
    outcome: Outcome,
}

extern "C" fn run_order(order: *mut c_void) {
    // SAFETY: `in_thread` passes an order, and waits until this has returned.
    let order = unsafe { &mut *order.cast::<Order>() };
    // SAFETY: as above: nobody else uses the interpreter meanwhile.
    let interpreter = unsafe { &mut *order.interpreter };
    order.outcome = interpreter.step(&order.step);
}

fn thread_of(step: &Step) -> Option<usize> {
    let Arg::Value(which) = step.args[0] else { return None };
    usize::try_from(which).ok()
}

impl Interpreter {
    /// An interpreter with all the memory that it will need.
    pub(super) fn new(files: Files, guard: Guard) -> Self {
        Self {
            files,
            guard,
            kernel: Kernel::Host,
            maps: vec_with_touched_room(MAPS_ROOM),
            answers: [None; MAX_STEPS],
            residence: vec![0; RESIDENCE_ROOM],
            out: vec_with_touched_room(OUT_ROOM),
            copies: Copies::new(),
            threads: Threads::new(),
            runner: None,
            company: Company::None,
            lineage: Lineage::First,
        }
    }

    /// Runs `steps` and writes what they answered to standard output.
    pub(super) fn run(&mut self, steps: &[Step]) {
        self.files.reset(&self.kernel);
        let needs_sealable =
            |step: &Step| step.call == Call::Seal || step.args.contains(&Arg::File(FileKind::Sealable));
        if steps.iter().any(needs_sealable) {
            self.files.renew_sealable(&self.kernel);
        }
        if steps.iter().any(|step| step.args.contains(&Arg::File(FileKind::Sealed))) {
            self.files.renew_sealed(&self.kernel);
        }
        self.run_range(steps, 0, steps.len());
        if let Some(machine) = self.kernel.as_machine() {
            let words = machine.end();
            let _ = self.out.write_all(words.as_bytes());
        }
        flush(&mut self.out);
    }

    pub(super) fn run_range(&mut self, steps: &[Step], from: usize, to: usize) {
        let mut index = from;
        while let Some(step) = steps[..to].get(index) {
            if matches!(step.call, Call::Fork | Call::Twin) {
                self.guard.made(step.call, [0; 6]);
            }
            match step.call {
                Call::State => state::record(&self.kernel, &self.guard, &mut self.maps, &mut self.out),
                Call::Fork | Call::Twin | Call::Vfork if self.company == Company::Shared => {
                    self.write(index, Outcome::Skipped)
                }
                Call::Fork => index += self.fork(steps, index, to),
                Call::Twin => index += self.twin(steps, index, to),
                Call::Vfork => index += self.vfork(steps, index, to),
                Call::Thread => self.runner = thread_of(step),
                _ => self.one(steps, index),
            }
            index += 1;
        }
    }

    /// Runs a step, in the thread that was asked for, and writes down what it answered.
    pub(super) fn one(&mut self, steps: &[Step], index: usize) {
        let step = &steps[index];
        let outcome = match self.runner.take().filter(|_| self.company == Company::None && step.call != Call::Storm) {
            Some(which) => self.in_thread(which, step),
            None => self.step(step),
        };
        if let (Outcome::Value(value), Some(answer)) = (outcome, self.answers.get_mut(index)) {
            *answer = Some(value);
        }
        self.write(index, outcome);
        if let (Call::Mincore, Outcome::Value(0)) = (step.call, outcome) {
            let range = [0, 1].map(|place| self.resolve(step.args[place]).unwrap_or(0));
            self.tell_residence(range);
        }
    }

    /// Writes down which pages of `[start, length]` are resident, as mincore(2) has just said.
    fn tell_residence(&mut self, [start, len]: [u64; 2]) {
        let pages = usize::try_from(len.div_ceil(PAGE)).unwrap_or(0).min(self.residence.len());
        self.kernel.fetch_residence(&mut self.residence[..pages]);
        if self.kernel.forgets_zero_pages(self.lineage) {
            let told = (start..).step_by(4096).zip(&mut self.residence[..pages]);
            for (page, told) in told.filter(|(_, told)| **told & 1 != 0) {
                // SAFETY: what mincore(2) has told of is mapped, and no part of the interpreter.
                *told &= u8::from(unsafe { state::hash_page(&self.kernel, page) }.is_ok_and(|hash| hash != 0));
            }
        }
        accounts::residence(&self.kernel, [start, len], &self.residence, &mut self.maps, &mut self.out);
    }

    fn write(&mut self, index: usize, outcome: Outcome) {
        // A vector with room enough: the write cannot fail.
        let _ = writeln!(self.out, "{index} {outcome}");
    }

    fn in_thread(&mut self, which: usize, step: &Step) -> Outcome {
        if let Some(machine) = self.kernel.as_machine() {
            machine.run_on(Some(which));
            let outcome = self.step(step);
            if let Some(machine) = self.kernel.as_machine() {
                machine.run_on(None);
            }
            return outcome;
        }
        let mut order = Order { interpreter: self, step: *step, outcome: Outcome::Skipped };
        let argument = ptr::from_mut(&mut order).cast();
        // SAFETY: the order points to `self`; this thread does nothing with it while another has it, but for the
        // mailboxes, which are atomics.
        let threads = unsafe { &mut (*order.interpreter).threads };
        // SAFETY: the order is alive, is what `run_order` takes, and is left alone meanwhile.
        let has_run = unsafe { threads.run(which, run_order, argument) };
        if has_run { order.outcome } else { self.step(step) }
    }

    fn step(&mut self, step: &Step) -> Outcome {
        let mut args = [0; 6];
        for (place, arg) in args.iter_mut().zip(step.used_args()) {
            match self.resolve(*arg) {
                Some(value) => *place = value,
                None => return Outcome::Skipped,
            }
        }
        if !self.guard.allows(step.call, args) {
            return Outcome::Skipped;
        }
        self.guard.made(step.call, args);
        if let Some(number) = step.call.number() {
            // SAFETY: the guard has seen that the call leaves this process's own memory alone.
            return unsafe { self.kernel.syscall(number, args) };
        }
        let [addr, second, ..] = args;
        match step.call {
            Call::Read => {
                // SAFETY: the guard has seen that the address is not this process's own.
                let read = unsafe { self.kernel.read_byte(addr) };
                read.map_or_else(|fault| fault, |byte| Outcome::Value(byte.into()))
            }
            Call::Write => {
                // SAFETY: the guard has seen that the address is not this process's own.
                let written = unsafe { self.kernel.write_byte(addr, second.to_le_bytes()[0]) };
                written.map_or_else(|fault| fault, |()| Outcome::Value(0))
            }
            Call::Limit => self.kernel.set_limit(addr, second),
            Call::DropCapabilities => self.kernel.drop_capabilities(),
            Call::Seal => self.files.seal(&self.kernel, addr),
            Call::NewMemfd => self.files.make_memfd(&self.kernel, addr),
            // Threads of a child in the same memory would be gone when its parent goes on.
            Call::Storm if self.company == Company::Shared => Outcome::Skipped,
            Call::Storm => self.threads.storm(addr),
            Call::FileWrite | Call::FileRead | Call::Load | Call::Store | Call::Execute => {
                self.copies.run(&self.kernel, &self.files, step.call, args)
            }
            Call::CopyOut | Call::CopyIn | Call::VmRead => self.copies.run(&self.kernel, &self.files, step.call, args),
            Call::ProcessMadvise => self.process_madvise(args),
            other => self.prepared(other, addr, second),
        }
    }

    /// Calls whose arguments are in part the interpreter's.
    fn prepared(&mut self, call: Call, addr: u64, second: u64) -> Outcome {
        let (number, args) = match call {
            Call::Mincore => {
                (libc::SYS_mincore, [addr, second, self.kernel.residence(self.residence.as_mut_ptr() as u64), 0, 0, 0])
            }
            Call::Shmat => (libc::SYS_shmat, [self.files.segment, addr, second, 0, 0, 0]),
            Call::NameAnonymous => {
                let name = c"oracle".as_ptr() as u64;
                let (option, what) = (libc::PR_SET_VMA.cast_unsigned(), libc::PR_SET_VMA_ANON_NAME.cast_unsigned());
                (libc::SYS_prctl, [option.into(), what.into(), addr, second, name, 0])
            }
            _ => return Outcome::Skipped,
        };
        // SAFETY: the guard has seen that the call leaves this process's own memory alone, but for the table of
        // residence, which has room for as many pages as the guard allows.
        unsafe { self.kernel.syscall(number, args) }
    }

    /// process_madvise(2). The second argument says how: the lowest four bits name the target, the next the number of
    /// segments, then four bits each say which segments those are; what is wrong with the call is in bits 24 to 27.
    fn process_madvise(&self, [advice, how, a, a_len, b, b_len]: [u64; 6]) -> Outcome {
        let segment = |place: u64| match how >> (8 + 4 * place) & 3 {
            0 => [a, a_len],
            1 => [b, b_len],
            2 => [a, 0],
            _ => [b.wrapping_add(1), 0],
        };
        let vector = [0, 1, 2, 3].map(segment);
        let (own, opened) = match how & 0xf {
            0 => (PIDFD_SELF_THREAD, false),
            1 => match &self.kernel {
                Kernel::Machine(_) => (OWN_PROCESS.into(), false),
                _ => (pidfd(std::process::id().into()), true),
            },
            2 => (PIDFD_SELF_THREAD - 1, false),
            // SAFETY: takes nothing and changes nothing.
            3 => (pidfd(u64::from(unsafe { libc::getppid() }.cast_unsigned())), true),
            4 => (self.files.descriptor(FileKind::Pipe).cast_signed(), false),
            _ => (self.files.descriptor(FileKind::Closed).cast_signed(), false),
        };
        let (mut place, mut count, mut flags) = (vector.as_ptr() as u64, how >> 4 & 7, 0);
        match how >> 24 & 7 {
            1 => place = 0,
            2 => count = 1025,
            3 => flags = 1,
            4 => count |= 1 << 32,
            _ => {}
        }
        // SAFETY: the guard has seen that no segment is the interpreter's own memory.
        let outcome = unsafe {
            self.kernel.syscall(libc::SYS_process_madvise, [own.cast_unsigned(), place, count, advice, flags, 0])
        };
        if opened {
            // SAFETY: the descriptor was opened above, and nobody else has it.
            unsafe { raw::syscall(libc::SYS_close, [own.cast_unsigned(), 0, 0, 0, 0, 0]) };
        }
        outcome
    }

    fn resolve(&self, arg: Arg) -> Option<u64> {
        let (base, delta) = match arg {
            Arg::Value(value) => return Some(value),
            Arg::File(kind) => return Some(self.files.descriptor(kind)),
            Arg::At(base, delta) => (base, delta),
        };
        let base = match base {
            Base::Window => self.kernel.window(),
            Base::Answer(step) => self.answers.get(usize::from(step)).copied().flatten()?,
            // SAFETY: a break of 0 only asks.
            Base::Break => match unsafe { self.kernel.syscall(libc::SYS_brk, [0; 6]) } {
                Outcome::Value(end) => end,
                _ => return None,
            },
        };
        Some(base.wrapping_add_signed(delta))
    }
}

/// A descriptor of a process.
fn pidfd(pid: u64) -> i64 {
    // SAFETY: plain numbers.
    match unsafe { raw::syscall(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]) } {
        Outcome::Value(fd) => fd.cast_signed(),
        _ => -1,
    }
}

/// Waits for a child to end; its wait status.
pub(super) fn wait_for(child: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: the status is ours.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return -1;
        }
    }
    status
}

/// Writes all of `out` to standard output and empties it.
pub(super) fn flush(out: &mut Vec<u8>) {
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are the slice's.
        let count = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(count) {
            Ok(count) => rest = &rest[count..],
            // SAFETY: ends this process at once: without output it is of no use.
            Err(_) => unsafe { libc::_exit(3) },
        }
    }
    out.clear();
}

/// An empty vector with room for `bytes`, all of it resident.
pub(super) fn vec_with_touched_room(bytes: usize) -> Vec<u8> {
    let mut room = vec![1; bytes];
    room.clear();
    room
}
