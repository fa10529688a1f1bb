//! Children of a program: alone, by turns with their parent, or in its memory.

use std::ffi::c_void;
use std::io::Write as _;
use std::ops::Range;
use std::ptr;

use super::interpret::{Company, Interpreter, Lineage, flush, wait_for};
use super::program::{Arg, Call, Step};
use super::state;
use super::threads::Threads;

/// What a child in the same memory is to run.
struct Share {
    interpreter: *mut Interpreter,
    steps: *const [Step],
    first: usize,
    end: usize,
}

impl Interpreter {
    /// Forks; the child runs the steps after `index` that are its own. Returns how many those are.
    pub(super) fn fork(&mut self, steps: &[Step], index: usize, to: usize) -> usize {
        let count = count_of(steps, index, to);
        if self.kernel.as_machine().is_some() {
            self.fork_inside(steps, index, count);
            return count;
        }
        flush(&mut self.out);
        // SAFETY: the other threads wait for this one, so the child, which has it alone, may go on as it would.
        match unsafe { self.kernel.fork() } {
            0 => {
                self.threads.forget();
                self.lineage = Lineage::Child;
                let _ = writeln!(self.out, "child of {index}");
                self.run_range(steps, index + 1, index + 1 + count);
                self.end_child(index);
            }
            child @ 1.. => self.note_end(index, child),
            _ => drop(writeln!(self.out, "{index} no child")),
        }
        count
    }

    /// Forks; child and parent run the steps after `index` by turns, the child first.
    pub(super) fn twin(&mut self, steps: &[Step], index: usize, to: usize) -> usize {
        let count = count_of(steps, index, to);
        if self.kernel.as_machine().is_some() {
            self.twin_inside(steps, index, count);
            return count;
        }
        let (Some(down), Some(up)) = (pipe(), pipe()) else { return count };
        flush(&mut self.out);
        self.company = Company::Shared;
        // SAFETY: as in `fork`.
        let child = unsafe { self.kernel.fork() };
        if child < 0 {
            let _ = writeln!(self.out, "{index} no child");
        } else {
            let is_child = child == 0;
            if is_child {
                self.threads.forget();
                self.lineage = Lineage::Child;
            }
            let (mine, other) =
                if is_child { ([down[0], up[1]], [down[1], up[0]]) } else { ([up[0], down[1]], [up[1], down[0]]) };
            // Without the other ends, the end of the one wakes the other.
            other.iter().for_each(|end| close(*end));
            self.turns(steps, index + 1..index + 1 + count, usize::from(!is_child), mine);
            if is_child {
                self.end_child(index);
            }
            mine.iter().for_each(|end| close(*end));
            self.note_end(index, child);
        }
        self.company = Company::None;
        count
    }

    /// Runs every other of the steps in `range`, from the one at `first` (0 or 1) on, and lets the other process run those between.
    fn turns(&mut self, steps: &[Step], range: Range<usize>, first: usize, [from, to]: [libc::c_int; 2]) {
        for (turn, index) in range.enumerate() {
            if turn % 2 == first {
                self.run_range(steps, index, index + 1);
                flush(&mut self.out);
                // SAFETY: the kernel reads one byte.
                unsafe { libc::write(to, [1_u8].as_ptr().cast(), 1) };
            } else {
                let mut byte = 0_u8;
                // SAFETY: the kernel writes one byte, for which there is room.
                unsafe { libc::read(from, ptr::from_mut(&mut byte).cast(), 1) };
            }
        }
    }

    /// Makes a child that shares this process's memory; it runs the steps after `index` while this process waits.
    pub(super) fn vfork(&mut self, steps: &[Step], index: usize, to: usize) -> usize {
        let count = count_of(steps, index, to);
        if self.kernel.as_machine().is_some() {
            self.vfork_inside(steps, index, count);
            return count;
        }
        let mut stack = self.threads.take_stack();
        self.company = Company::Shared;
        let mut share = Share { interpreter: self, steps, first: index + 1, end: index + 1 + count };
        // SAFETY: what is shared outlives the child, and this process does nothing with it until the child has ended.
        let child = unsafe { Threads::vfork(&mut stack, run_shared, ptr::from_mut(&mut share).cast()) };
        self.company = Company::None;
        self.threads.return_stack(stack);
        self.note_end(index, child);
        count
    }

    /// Waits for a child and writes down how it ended.
    fn note_end(&mut self, index: usize, child: libc::pid_t) {
        let status = wait_for(child);
        let _ = writeln!(self.out, "{index} child {status:#x}");
    }

    /// Writes down what the child leaves.
    pub(super) fn leave(&mut self, index: usize) {
        state::record(&self.kernel, &self.guard, &mut self.maps, &mut self.out);
        let _ = writeln!(self.out, "child of {index} ends");
    }

    /// Runs the steps in `range` in a child that shares this process's memory.
    pub(super) fn run_sharing(&mut self, steps: &[Step], range: Range<usize>) {
        for index in range {
            // A limit would be the child's alone, and capabilities and descriptors too.
            if !matches!(steps[index].call, Call::Limit | Call::DropCapabilities | Call::NewMemfd) {
                self.run_range(steps, index, index + 1);
            }
        }
    }

    /// Writes down what the child leaves, and ends it.
    fn end_child(&mut self, index: usize) {
        self.leave(index);
        flush(&mut self.out);
        // SAFETY: ends this process at once, as wanted.
        unsafe { libc::_exit(0) }
    }
}

/// How many steps after `index` are the child's.
fn count_of(steps: &[Step], index: usize, to: usize) -> usize {
    let Arg::Value(count) = steps[index].args[0] else { return 0 };
    usize::try_from(count).unwrap_or(usize::MAX).min(to - index - 1)
}

extern "C" fn run_shared(share: *mut c_void) {
    // SAFETY: `vfork` passes a share, which outlives this process.
    let share = unsafe { &mut *share.cast::<Share>() };
    // SAFETY: the parent is stopped until this process has ended, so nobody else uses the interpreter.
    let interpreter = unsafe { &mut *share.interpreter };
    // SAFETY: the same.
    let steps = unsafe { &*share.steps };
    interpreter.run_sharing(steps, share.first..share.end);
    // SAFETY: ends this process at once, as wanted.
    unsafe { libc::_exit(0) }
}

fn pipe() -> Option<[libc::c_int; 2]> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    (unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0).then_some(ends)
}

fn close(fd: libc::c_int) {
    // SAFETY: a descriptor of this module's own, used no more.
    unsafe { libc::close(fd) };
}
