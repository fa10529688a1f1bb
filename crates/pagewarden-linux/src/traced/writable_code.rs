//! With W^X denied, nothing that exec maps stays writable and executable either.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use pagewarden::linux::Request;
use pagewarden::manager::WxPolicy;
use pagewarden::{PageRange, Prot};

use super::inject::StoppedCall;
use super::process::SharedSpace;
use super::ptrace::{self, Stop, Tid, Until};
use super::tracer::{Tracer, kill, resume};

/// The bytes of `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

impl Tracer<'_> {
    /// Lets a program that exec has just put in place begin, without writable code.
    pub(super) fn close_writable_code(&mut self, tid: Tid) {
        let Some(space) = self.tree.tasks.get(&tid).and_then(|task| task.space.clone()) else { return };
        let ranges = writable_code(&space);
        if self.options.policy.wx == WxPolicy::Allow || ranges.is_empty() {
            return resume(tid, Until::Event, 0);
        }
        if self.protect(tid, &space, &ranges).is_none() {
            return self.kill_with_hint(tid, "its program has writable code that could not be closed (--wx deny)");
        }
        let program = self.tree.processes.get(&tid).map_or("?", |process| process.program.as_str());
        self.hints.push(format!("{program}: its program asks for an executable stack or data and does not get it"));
    }

    fn protect(&mut self, tid: Tid, space: &SharedSpace, ranges: &[(PageRange, Prot)]) -> Option<()> {
        ptrace::resume(tid, Until::Syscall, 0).ok()?;
        let event = self.events.of(tid)?;
        if event.stop != Stop::SyscallExit {
            self.events.put_back(event);
            return None;
        }
        let call = StoppedCall::at_exit(tid, Rc::clone(&self.events), Some(syscall_address(tid, space)?))?;
        let answer = call.own_result();
        let mut guard = space.borrow_mut();
        guard.manager.provider_mut().begin(call);
        let closed = ranges.iter().all(|(range, prot)| {
            let prot = (*prot - Prot::EXEC).bits().into();
            let request = Request::Mprotect { addr: range.start().as_u64(), len: range.bytes(), prot };
            guard.manager.call(&request).is_ok()
        });
        let call = guard.manager.provider_mut().end()?;
        if !closed {
            kill(tid);
            return None;
        }
        call.answer(answer);
        Some(())
    }
}

fn writable_code(space: &SharedSpace) -> Vec<(PageRange, Prot)> {
    let space = space.borrow();
    let map = space.manager.map().iter();
    let both = Prot::WRITE | Prot::EXEC;
    map.filter(|entry| entry.region.prot.contains(both)).map(|entry| (entry.range, entry.region.prot)).collect()
}

/// Where the host's own code, which every process has, holds a `syscall`.
fn syscall_address(tid: Tid, space: &SharedSpace) -> Option<u64> {
    let space = space.borrow();
    let is_vdso = |name: &str| name == "[vdso]";
    let vdso = space.manager.map().iter().find(|entry| entry.region.object().is_some_and(|o| is_vdso(o.name())))?;
    let memory = File::open(format!("/proc/{tid}/mem")).ok()?;
    let mut code = vec![0; usize::try_from(vdso.range.bytes()).ok()?];
    memory.read_exact_at(&mut code, vdso.range.start().as_u64()).ok()?;
    let at = code.windows(2).position(|pair| pair == SYSCALL)?;
    vdso.range.start().as_u64().checked_add(at as u64)
}
