//! Calls that the filter has stopped: what each of them means for the manager.

use std::collections::BTreeSet;
use std::rc::Rc;

use pagewarden::linux::{self, Advice, MapFlags, MapSource, Request};
use pagewarden::manager::{Cause, Refusal};
use pagewarden::{Errno, MemoryObject, ObjectKind, PAGE_SIZE, PageManager, Region, RegionFlags, Resource, Vmmap};

use super::files::{self, FileView};
use super::filter;
use super::import;
use super::inject::StoppedCall;
use super::process::{SharedSpace, Task};
use super::provider::TracedProvider;
use super::ptrace::{self, Tid, Until};
use super::segments;
use super::tracer::Tracer;
use super::verify;
use crate::options::Verify;
use crate::proc_maps;
use crate::report::CallEvent;

/// Names of the calls that are counted, and how many arguments each uses.
const NAMES: &[(i64, &str, usize)] = &[
    (libc::SYS_mmap, "mmap", 6),
    (libc::SYS_munmap, "munmap", 2),
    (libc::SYS_mprotect, "mprotect", 3),
    (libc::SYS_pkey_mprotect, "pkey_mprotect", 4),
    (libc::SYS_pkey_alloc, "pkey_alloc", 2),
    (libc::SYS_pkey_free, "pkey_free", 1),
    (filter::SYS_MSEAL, "mseal", 3),
    (libc::SYS_mremap, "mremap", 5),
    (libc::SYS_brk, "brk", 1),
    (libc::SYS_madvise, "madvise", 3),
    (libc::SYS_process_madvise, "process_madvise", 5),
    (libc::SYS_remap_file_pages, "remap_file_pages", 5),
    (libc::SYS_mlock, "mlock", 2),
    (libc::SYS_mlock2, "mlock2", 3),
    (libc::SYS_munlock, "munlock", 2),
    (libc::SYS_mlockall, "mlockall", 1),
    (libc::SYS_munlockall, "munlockall", 0),
    (libc::SYS_shmget, "shmget", 3),
    (libc::SYS_shmat, "shmat", 3),
    (libc::SYS_shmdt, "shmdt", 1),
    (libc::SYS_shmctl, "shmctl", 3),
    (libc::SYS_ftruncate, "ftruncate", 2),
    (libc::SYS_fallocate, "fallocate", 4),
    (libc::SYS_prctl, "prctl", 5),
    (libc::SYS_fork, "fork", 0),
    (libc::SYS_vfork, "vfork", 0),
    (libc::SYS_clone, "clone", 5),
    (libc::SYS_clone3, "clone3", 2),
];

/// What process_madvise(2) takes for no advice at all.
const NO_ADVICE: u64 = u32::MAX as u64;

/// A call that has been decided, for counts and observers.
pub(super) struct Decided {
    tid: Tid,
    number: u64,
    args: [u64; 6],
    plan: Vec<String>,
    answer: Result<u64, Refusal>,
    /// What the guest is told: the answer, but for brk, which has no error.
    told: Result<u64, Errno>,
}

impl Decided {
    /// What was decided of `call`, without a plan.
    pub(super) fn new(call: &StoppedCall, answer: Result<u64, Refusal>) -> Self {
        let told = answer.map_err(|refusal| refusal.errno);
        Self { tid: call.tid(), number: call.number(), args: call.args(), plan: Vec::new(), answer, told }
    }

    fn name(&self) -> (&'static str, usize) {
        name(self.number)
    }
}

/// What [`call_name`] says of a call that has nothing to do with memory.
pub const UNKNOWN_CALL: &str = "?";

/// The name of a memory call, and how many arguments it uses.
fn name(number: u64) -> (&'static str, usize) {
    let known = NAMES.iter().find(|(known, ..)| known.cast_unsigned() == number);
    known.map_or((UNKNOWN_CALL, 0), |(_, name, args)| (name, *args))
}

/// The name that reports have for the memory call `number`; [`UNKNOWN_CALL`] if it is none.
pub fn call_name(number: u64) -> &'static str {
    name(number).0
}

impl Tracer<'_> {
    /// Deals with a call that the filter has stopped.
    pub(super) fn stopped_call(&mut self, tid: Tid) {
        let Some(call) = StoppedCall::new(tid, Rc::clone(&self.events)) else { return };
        let Some(task) = self.tree.tasks.get(&tid) else { return };
        let Some(space) = task.space.clone() else { return call.release(Until::Event) };
        match call.number().cast_signed() {
            libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => self.fork_call(&space, call),
            libc::SYS_setrlimit | libc::SYS_prlimit64 => self.limits_call(call),
            number if filter::CREDENTIALS.contains(&number) => Self::credentials_call(&space, call),
            libc::SYS_shmget => self.shmget(call),
            libc::SYS_shmctl => self.shmctl(call),
            libc::SYS_ftruncate | libc::SYS_fallocate => self.resize_call(call),
            libc::SYS_open | libc::SYS_openat | libc::SYS_creat => self.open_call(call),
            libc::SYS_process_madvise if is_for_others(&call) => self.process_madvise_for_others(&space, call),
            _ => self.memory_call(&space, call),
        }
    }

    fn memory_call(&mut self, space: &SharedSpace, call: StoppedCall) {
        let mut view =
            FileView { tid: call.tid(), table: &mut self.files, segments: &mut self.segments, is_zero_device: false };
        let decoded = linux::decode(call.number(), call.args(), &mut view);
        let is_zero_device = view.is_zero_device;
        let mut request = match decoded {
            Ok(Some(request)) => request,
            Ok(None) => return call.release(Until::Event),
            Err(_) if call.number() == libc::SYS_process_madvise.cast_unsigned() => {
                return self.process_madvise_refused(space, call);
            }
            Err(errno) => {
                let decided = Decided::new(&call, Err(errno.into()));
                return self.conclude(space, call, decided);
            }
        };
        if is_zero_device {
            Self::share_zero_pages(space, &mut request);
        }
        let mut decided = Decided::new(&call, Ok(0));
        let Some(call) = self.carry_out(space, call, &request, &mut decided) else { return };
        self.conclude(space, call, decided);
    }

    /// process_madvise(2) with an advice that may be given to other processes too: it changes no region, be it whose it
    /// may, and so the host's own call does it.
    fn process_madvise_for_others(&mut self, space: &SharedSpace, mut call: StoppedCall) {
        let result = call.run_unchanged();
        let decided = Decided::new(&call, result.map_err(Refusal::from));
        self.conclude(space, call, decided);
    }

    /// process_madvise(2) that is about another process, or in vain: why, only the host can tell. It is asked with an
    /// advice that there is not, so that nothing happens whatever the guest has changed meanwhile.
    fn process_madvise_refused(&mut self, space: &SharedSpace, mut call: StoppedCall) {
        let [pidfd, vector, count, _, flags, _] = call.args();
        let result = call.run(call.number(), [pidfd, vector, count, NO_ADVICE, flags, 0]);
        let decided = Decided::new(&call, result.map_err(Refusal::from));
        self.conclude(space, call, decided);
    }

    /// Plans and applies in the stopped thread. Nothing comes back if the thread is gone.
    fn carry_out(
        &mut self,
        space: &SharedSpace,
        call: StoppedCall,
        request: &Request,
        decided: &mut Decided,
    ) -> Option<StoppedCall> {
        let wants_plan = self.observer.is_some();
        if !self.refresh(space, call.tid()) {
            return None;
        }
        let mut guard = space.borrow_mut();
        guard.manager.provider_mut().begin(call);
        let mut again = true;
        loop {
            let plan = &mut decided.plan;
            decided.answer = guard.manager.call_observed(request, |planned| {
                if wants_plan {
                    *plan = planned.ops().iter().map(ToString::to_string).collect();
                }
            });
            let for_commit = matches!(decided.answer, Err(Refusal { cause: Cause::Limit(Resource::Committed), .. }));
            if !for_commit || !again || !self.sweep_segments() {
                break;
            }
            again = false;
        }
        let result = decided.answer.map_err(|refusal| refusal.errno);
        decided.told = linux::answer(request, result, guard.manager.program_break());
        let call = guard.manager.provider_mut().end()?;
        if call.is_lost() {
            guard.stale = true;
            return None;
        }
        drop(guard);
        if call.is_astray() {
            self.kill_users(space, "its code changed while a memory call of its own ran");
            return None;
        }
        Some(call)
    }

    /// Looks the space up anew if a thread died while it changed it, and others still use it. False if that
    /// cannot be done within the limits: then all its users are killed, for their map would stay untrue.
    pub(super) fn refresh(&mut self, space: &SharedSpace, tid: Tid) -> bool {
        if !space.borrow().stale {
            return true;
        }
        let (config, old_map, attributes) = {
            let guard = space.borrow();
            (guard.manager.config().clone(), guard.manager.map().clone(), guard.manager.attributes())
        };
        // The old charges go first: nobody has the memory twice.
        space.borrow_mut().manager = PageManager::new(config, TracedProvider::default());
        let account = self.new_account();
        // The host's list does not tell what shared memory was charged: it stays the object that it was.
        let known = |entry: &proc_maps::MapsEntry| known_region(&old_map, entry);
        let looked_up = import::import(tid, account, &self.policy, &mut self.files, &known);
        // What a thread shows that is being killed may be only the beginning.
        if !ptrace::is_stopped(tid) {
            return false;
        }
        let Ok(manager) = looked_up else {
            self.kill_users(space, "a thread died in a memory call, and what it left exceeds a limit");
            return false;
        };
        let mut guard = space.borrow_mut();
        guard.manager = manager;
        guard.manager.set_attributes(attributes);
        guard.stale = false;
        true
    }

    /// Kills every process that uses `space`, and says why.
    fn kill_users(&mut self, space: &SharedSpace, why: &str) {
        let uses = |task: &&Task| task.space.as_ref().is_some_and(|own| Rc::ptr_eq(own, space));
        let users: BTreeSet<Tid> = self.tree.tasks.values().filter(uses).map(|task| task.process).collect();
        for pid in users {
            self.kill_with_hint(pid, why);
        }
    }

    /// Counts, shows and verifies a call, and gives the guest its answer.
    pub(super) fn conclude(&mut self, space: &SharedSpace, call: StoppedCall, decided: Decided) {
        self.record(Some(space), &decided);
        if self.options.verify == Verify::EachCall && self.verify(space, &decided) {
            return;
        }
        call.answer(decided.told);
    }

    /// Counts and shows a call.
    pub(super) fn record(&mut self, space: Option<&SharedSpace>, decided: &Decided) {
        let (name, arity) = decided.name();
        self.calls += 1;
        let pid = self.tree.tasks.get(&decided.tid).map_or(decided.tid, |task| task.process);
        if let Some(process) = self.tree.processes.get_mut(&pid) {
            process.count(name, decided.answer.err());
        }
        let Some(observer) = &mut self.observer else { return };
        let committed = space.map_or(0, |space| space.borrow().manager.account().used(Resource::Committed));
        observer.call(&CallEvent {
            seconds: self.started.elapsed().as_secs_f64(),
            pid,
            tid: decided.tid,
            call: name,
            args: decided.args[..arity].to_vec(),
            plan: decided.plan.clone(),
            value: decided.told.ok(),
            errno: decided.answer.err().map(|refusal| refusal.errno.to_string()),
            reason: decided.answer.err().map(|refusal| refusal.cause.to_string()),
            committed: committed.saturating_mul(PAGE_SIZE),
        });
    }

    /// Compares with the host's list; true if they differ, and the run is being ended.
    fn verify(&mut self, space: &SharedSpace, decided: &Decided) -> bool {
        self.refresh(space, decided.tid);
        let mut space = space.borrow_mut();
        space.manager.provider_mut().read_by(decided.tid);
        space.manager.note_stack_growth();
        // A process that is being killed shows nothing, or only the beginning.
        let Ok(host) = proc_maps::read(decided.tid) else { return false };
        let task_end = space.manager.config().layout.task_end;
        let words = verify::difference(space.manager.map(), &host, task_end)
            .or_else(|| verify::sums_difference(&space.manager, decided.tid));
        let Some(words) = words else { return false };
        if !ptrace::is_stopped(decided.tid) {
            return false;
        }
        let (name, arity) = decided.name();
        let args: Vec<String> = decided.args[..arity].iter().map(|arg| format!("{arg:#x}")).collect();
        let answer = match decided.answer {
            Ok(value) => format!("{value:#x}"),
            Err(refusal) => refusal.to_string(),
        };
        let call = format!("after {name}({}) = {answer} in thread {}", args.join(", "), decided.tid);
        self.difference = Some(format!("{call}:\n{words}"));
        drop(space);
        self.end();
        true
    }

    fn limits_call(&mut self, mut call: StoppedCall) {
        let result = call.run_unchanged();
        for (pid, process) in &self.tree.processes {
            if let (Some(space), Ok(limits)) = (&process.space, import::limits(*pid)) {
                space.borrow_mut().manager.set_limits(limits);
            }
        }
        call.answer(result);
    }

    /// The guest changes who it is: what it may do is looked up anew.
    fn credentials_call(space: &SharedSpace, mut call: StoppedCall) {
        let result = call.run_unchanged();
        if let Ok(privileges) = import::privileges(call.tid()) {
            space.borrow_mut().manager.set_privileges(privileges);
        }
        call.answer(result);
    }

    /// Shared pages of `/dev/zero` are shared anonymous memory, and cost as much.
    fn share_zero_pages(space: &SharedSpace, request: &mut Request) {
        if let Request::Mmap(call) = request
            && call.flags.intersects(MapFlags::SHARED)
            && let MapSource::File(file) = &mut call.source
        {
            let charge = space.borrow().manager.account().empty_charge(Resource::Committed);
            file.object = MemoryObject::with_charge(ObjectKind::SharedAnonymous, "/dev/zero (deleted)", charge);
        }
    }

    fn shmget(&mut self, mut call: StoppedCall) {
        let [key, bytes, flags, ..] = call.args();
        if !segments::shares_namespace(call.tid()) {
            // What is made there could not be looked at, and so not be charged.
            self.record_result(&call, Err(Errno::NoSys));
            return call.answer(Err(Errno::NoSys));
        }
        let (key, flags) = (as_int(key), as_int(flags));
        let is_private = key == libc::IPC_PRIVATE;
        let makes_one = is_private || flags & libc::IPC_CREAT != 0 && segments::segment_by_key(key).is_none();
        let charge = if makes_one {
            let first = self.segments.charge_segment(bytes);
            match first
                .or_else(|over| if self.sweep_segments() { self.segments.charge_segment(bytes) } else { Err(over) })
            {
                Ok(charge) => Some(charge),
                Err(over) => return self.refuse(call, over.resource),
            }
        } else {
            None
        };
        let result = call.run_unchanged();
        if let (Ok(id), Some(charge)) = (result, charge) {
            self.segments.keep_segment(as_int(id), charge);
        }
        self.record_result(&call, result);
        call.answer(result);
    }

    /// Refuses a call for want of budget.
    pub(super) fn refuse(&mut self, call: StoppedCall, resource: Resource) {
        let refusal = Refusal { errno: Errno::NoMem, cause: Cause::Limit(resource) };
        self.record(None, &Decided::new(&call, Err(refusal)));
        call.answer(Err(refusal.errno));
    }

    fn record_result(&mut self, call: &StoppedCall, result: Result<u64, Errno>) {
        self.record(None, &Decided::new(call, result.map_err(Refusal::from)));
    }

    fn shmctl(&mut self, mut call: StoppedCall) {
        let result = call.run_unchanged();
        self.sweep_segments();
        self.record_result(&call, result);
        call.answer(result);
    }

    /// ftruncate and fallocate: of a memfd they are memory, of other files nothing that we count.
    fn resize_call(&mut self, mut call: StoppedCall) {
        let [fd, a, b, c, ..] = call.args();
        let status = files::status(&files::fd_path(call.tid(), as_int(fd)));
        let Some(status) = status.ok().filter(|status| self.segments.is_memory(status.id)) else {
            return call.release(Until::Event);
        };
        let bytes = match call.number().cast_signed() {
            libc::SYS_ftruncate => a,
            _ if a & !u64::from(libc::FALLOC_FL_KEEP_SIZE.unsigned_abs()) != 0 => 0,
            _ => b.saturating_add(c),
        };
        let charged = self.segments.note_memfd(status.id, bytes);
        if let Err(over) = charged
            && !(self.sweep_segments() && self.segments.note_memfd(status.id, bytes).is_ok())
        {
            return self.refuse(call, over.resource);
        }
        let result = call.run_unchanged();
        let now = files::status(&files::fd_path(call.tid(), as_int(fd))).map_or(status.bytes, |status| status.bytes);
        let kept = if result.is_ok() && call.number().cast_signed() == libc::SYS_fallocate { bytes } else { 0 };
        self.segments.settle_memfd(status.id, now.max(kept));
        self.record_result(&call, result);
        call.answer(result);
    }
}

/// Whether the advice of a process_madvise(2) may be given to other processes.
fn is_for_others(call: &StoppedCall) -> bool {
    let [_, _, _, advice, ..] = call.args();
    Advice::from_raw(as_int(advice)).is_some_and(Advice::is_for_others)
}

/// What the host's list does not tell of a region that was in `old` already.
fn known_region(old: &Vmmap, entry: &proc_maps::MapsEntry) -> Option<Region> {
    let old = old.get(entry.range.start()).filter(|old| old.range == entry.range)?;
    let is_shared = entry.shared
        && old
            .region
            .object()
            .is_some_and(|object| matches!(object.kind(), ObjectKind::SharedAnonymous | ObjectKind::SysV { .. }));
    // What was sealed is what it was, and stays so.
    let is_known = is_shared || old.region.flags.contains(RegionFlags::SEALED);
    is_known.then(|| Region { prot: entry.prot, ..old.region.clone() })
}

/// An `int` argument: the lower half of its register.
#[expect(clippy::cast_possible_truncation, reason = "the ABI drops the upper half")]
pub(super) const fn as_int(word: u64) -> i32 {
    word as i32
}
