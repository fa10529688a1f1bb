//! fork, vfork, clone and clone3: children and what they cost.
//!
//! A child with memory of its own is charged before it is made. The parent is then waited for until the
//! host tells of the child, so that no other call changes the space between charge and copy. The child
//! starts traced and stopped; it is in the tables before its first stop is looked at. If its parent dies in
//! between, the host is asked whether there is a child: a charge for one that never came would stay for good.
//!
//! The flags of clone3 lie in memory that another thread may change after we have read them. What has
//! become of the child is therefore asked of the host, and a child that got away untraced ends the run.

use std::fs;
use std::rc::Rc;

use pagewarden::Errno;
use pagewarden::manager::{PendingFork, Refusal};

use super::calls::Decided;
use super::inject::StoppedCall;
use super::process::{SharedSpace, Space};
use super::provider::TracedProvider;
use super::ptrace::{self, Stop, Tid, Until};
use super::tracer::{Tracer, kill};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_UNTRACED: u64 = 0x80_0000;
/// `KCMP_VM` (linux/kcmp.h).
pub(super) const KCMP_VM: i32 = 1;

/// What a child has in common with its parent.
#[derive(Clone, Copy)]
struct Kinship {
    memory: bool,
    process: bool,
}

/// Where a child comes from.
struct Origin {
    /// The thread that has made it.
    parent: Tid,
    /// The space that was charged for it, if it gets its own.
    fork: Option<PendingFork>,
    /// The parent's space.
    space: SharedSpace,
}

impl Tracer<'_> {
    /// Lets a thread make a child, if the child can be paid for.
    pub(super) fn fork_call(&mut self, space: &SharedSpace, mut call: StoppedCall) {
        let tid = call.tid();
        if !self.refresh(space, tid) {
            return;
        }
        let is_clone3 = call.number() == libc::SYS_clone3.cast_unsigned();
        let flags = flags_of(&call);
        if flags & CLONE_UNTRACED != 0 {
            return call.answer(Err(Errno::Inval));
        }
        let pending = if flags & CLONE_VM == 0 {
            match self.prepare_fork(space, tid) {
                Ok(pending) => Some(pending),
                Err(refusal) => {
                    self.record(Some(space), &Decided::new(&call, Err(refusal)));
                    return call.answer(Err(refusal.errno));
                }
            }
        } else {
            None
        };
        let process = self.tree.tasks.get(&tid).map_or(tid, |task| task.process);
        let told = Kinship { memory: flags & CLONE_VM != 0, process: flags & CLONE_THREAD != 0 };
        match call.run_to_event() {
            Some(Stop::Cloned) => {
                let child = ptrace::event_message(tid).ok().and_then(|child| Tid::try_from(child).ok());
                if let Some(child) = child {
                    let kin = if is_clone3 { kinship(tid, child, told) } else { told };
                    self.add_child(child, process, kin, Origin { parent: tid, fork: pending, space: Rc::clone(space) });
                }
            }
            Some(_) => {
                drop(pending);
                if is_clone3
                    && let Some(child) = ptrace::result_register(tid).ok().and_then(|value| Tid::try_from(value).ok())
                    && child > 0
                {
                    self.hints.push("a child was made that could not be traced (CLONE_UNTRACED)".to_owned());
                    kill_untraced(process, child);
                    return self.end();
                }
            }
            None => {
                if let Some(child) = self.unknown_process() {
                    let kin = Kinship { process: false, ..told };
                    self.add_child(child, process, kin, Origin { parent: tid, fork: pending, space: Rc::clone(space) });
                }
            }
        }
        call.release(Until::Event);
    }

    fn prepare_fork(&mut self, space: &SharedSpace, tid: Tid) -> Result<PendingFork, Refusal> {
        let try_once = |tracer: &Self| {
            let mut guard = space.borrow_mut();
            guard.manager.provider_mut().read_by(tid);
            guard.manager.prepare_fork(tracer.new_account())
        };
        match try_once(self) {
            Err(_) if self.sweep_segments() => try_once(self),
            result => result,
        }
    }

    /// Enters a child in the tables.
    fn add_child(&mut self, child: Tid, process: Tid, kin: Kinship, from: Origin) {
        if kin.process {
            return self.tree.add_thread(child, process, Some(from.space));
        }
        let program = self.tree.processes.get(&process).map_or_else(String::new, |parent| parent.program.clone());
        if kin.memory {
            self.tree.add_process(child, process, program, None);
            self.tree.add_thread(child, child, Some(from.space));
            return;
        }
        let fork = match from.fork {
            Some(fork) => fork,
            // The flags changed under our eyes: the child is paid for now, or does not live.
            None => match self.prepare_fork(&from.space, from.parent) {
                Ok(fork) => fork,
                Err(_) => return kill(child),
            },
        };
        let mut provider = TracedProvider::default();
        provider.read_by(child);
        let space = Space::share(fork.finish(provider));
        self.tree.add_process(child, process, program, Some(space));
    }

    /// A process that is traced by this thread and in no table. Children are made one at a time, so there is
    /// at most one.
    fn unknown_process(&self) -> Option<Tid> {
        let tracer = nix::unistd::gettid().as_raw();
        let is_known = |pid: &Tid| self.tree.tasks.contains_key(pid);
        processes().find(|pid| !is_known(pid) && status_number(*pid, "TracerPid:") == Some(tracer))
    }

    /// Takes in a thread whose maker died before it told of it; false if there is no such thread.
    pub(super) fn adopt_thread(&mut self, tid: Tid) -> bool {
        let Some(process) = thread_group(tid).filter(|process| *process != tid) else { return false };
        let Some(space) = self.tree.tasks.get(&process).and_then(|leader| leader.space.clone()) else { return false };
        self.tree.add_thread(tid, process, Some(space));
        true
    }
}

/// The flags that a child is made with.
fn flags_of(call: &StoppedCall) -> u64 {
    let [first, ..] = call.args();
    match call.number().cast_signed() {
        libc::SYS_clone => first,
        libc::SYS_vfork => CLONE_VM | CLONE_VFORK,
        // What cannot be read the host cannot read either.
        libc::SYS_clone3 => ptrace::peek(call.tid(), first).unwrap_or(0),
        _ => 0,
    }
}

/// What the child of a clone3 has become; what it was `told` to become if the host does not say.
fn kinship(parent: Tid, child: Tid, told: Kinship) -> Kinship {
    // SAFETY: plain numbers.
    let memory = match unsafe { libc::syscall(libc::SYS_kcmp, parent, child, KCMP_VM, 0, 0) } {
        0 => true,
        1.. => false,
        _ => told.memory,
    };
    Kinship { memory, process: thread_group(child).map_or(told.process, |group| group != child) }
}

/// The process that a thread belongs to.
pub(super) fn thread_group(tid: Tid) -> Option<Tid> {
    status_number(tid, "Tgid:")
}

fn status_number(tid: Tid, field: &str) -> Option<Tid> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.trim().parse().ok()
}

/// All processes of the host.
fn processes() -> impl Iterator<Item = Tid> {
    let folder = fs::read_dir("/proc").into_iter().flatten().flatten();
    folder.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the child that `process`, which is stopped, has just made and that nobody traces. `number` is the
/// child's in its parent's PID namespace. With `CLONE_PARENT` it is a sibling, and may be our own child.
fn kill_untraced(process: Tid, number: Tid) {
    let parents = [Some(process), status_number(process, "PPid:")];
    for pid in processes() {
        let is_untraced = status_number(pid, "TracerPid:") == Some(0);
        let parent = status_number(pid, "PPid:");
        if is_untraced && parent.is_some() && parents.contains(&parent) && has_number(pid, number) {
            kill(pid);
        }
    }
}

/// Whether `pid` has `number` in one of its PID namespaces.
fn has_number(pid: Tid, number: Tid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().any(|own| own.parse() == Ok(number))
}
