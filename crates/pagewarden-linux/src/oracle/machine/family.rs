//! Children of a program on the machine: processes of a kernel that is in this process, as is the interpreter of each.
//!
//! What a host's fork copies of the interpreter is copied here by hand, and nothing else: [`Own`].

use std::io::Write as _;
use std::mem;

use super::super::guard::Guard;
use super::super::interpret::{Company, Interpreter, Lineage};
use super::super::program::{MAX_STEPS, Step};
use super::ProcessId;

/// What a process has for itself of the interpreter that runs its program.
#[derive(Clone, Debug)]
struct Own {
    answers: [Option<u64>; MAX_STEPS],
    guard: Guard,
    runner: Option<usize>,
    descriptors: [libc::c_int; 10],
    lineage: Lineage,
}

impl Interpreter {
    /// Forks; the child runs the `count` steps after `index`.
    pub(in super::super) fn fork_inside(&mut self, steps: &[Step], index: usize, count: usize) {
        let Some((parent, child)) = self.split() else { return self.note_no_child(index) };
        let mut own = self.own_of_child();
        self.change_to(child, &mut own);
        let _ = writeln!(self.out, "child of {index}");
        self.run_range(steps, index + 1, index + 1 + count);
        self.leave(index);
        self.end_inside(parent, &mut own);
        let _ = writeln!(self.out, "{index} child 0x0");
    }

    /// Forks; child and parent run the `count` steps after `index` by turns, the child first.
    pub(in super::super) fn twin_inside(&mut self, steps: &[Step], index: usize, count: usize) {
        let Some((parent, child)) = self.split() else { return self.note_no_child(index) };
        self.company = Company::Shared;
        let mut own = self.own_of_child();
        for (turn, at) in (index + 1..index + 1 + count).enumerate() {
            let is_childs = turn % 2 == 0;
            if is_childs {
                self.change_to(child, &mut own);
            }
            self.run_range(steps, at, at + 1);
            if is_childs {
                self.change_to(parent, &mut own);
            }
        }
        self.change_to(child, &mut own);
        self.leave(index);
        self.end_inside(parent, &mut own);
        let _ = writeln!(self.out, "{index} child 0x0");
        self.company = Company::None;
    }

    /// Has a child in the same memory run the `count` steps after `index`: it has the interpreter too.
    pub(in super::super) fn vfork_inside(&mut self, steps: &[Step], index: usize, count: usize) {
        self.company = Company::Shared;
        self.run_sharing(steps, index + 1..index + 1 + count);
        self.company = Company::None;
        let _ = writeln!(self.out, "{index} child 0x0");
    }

    fn note_no_child(&mut self, index: usize) {
        let _ = writeln!(self.out, "{index} no child");
    }

    /// Makes a process like the present one, which goes on: the numbers of both.
    fn split(&mut self) -> Option<(ProcessId, ProcessId)> {
        let machine = self.kernel.as_machine()?;
        let parent = machine.current();
        machine.fork().map(|child| (parent, child)).ok()
    }

    fn own_of_child(&self) -> Own {
        Own {
            answers: self.answers,
            guard: self.guard.clone(),
            runner: self.runner,
            descriptors: self.files.descriptors,
            lineage: Lineage::Child,
        }
    }

    /// Has the other process go on, whose part of the interpreter is `own`; then that is the present one's.
    fn change_to(&mut self, process: ProcessId, own: &mut Own) {
        if let Some(machine) = self.kernel.as_machine() {
            machine.change_to(process);
        }
        mem::swap(&mut self.answers, &mut own.answers);
        mem::swap(&mut self.guard, &mut own.guard);
        mem::swap(&mut self.runner, &mut own.runner);
        mem::swap(&mut self.files.descriptors, &mut own.descriptors);
        mem::swap(&mut self.lineage, &mut own.lineage);
    }

    /// Ends the process that runs, and has its parent go on.
    fn end_inside(&mut self, parent: ProcessId, own: &mut Own) {
        if let Some(machine) = self.kernel.as_machine() {
            machine.end_process();
        }
        self.change_to(parent, own);
    }
}
