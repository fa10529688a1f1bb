//! Linux's calls, with Linux's numbers and answers: those about memory, and what else a small static program needs.
//!
//! What they mean for memory is the core's. Differs from Linux: there are no files but the log, which is descriptors 1 and
//! 2, and no signals: what would be one ends the process. A thread can be made by clone(2) with the flags that threads of
//! a C library have, and no others.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagewarden::linux::{self, Files, OpenFile, Segment};
use pagewarden::manager::Layout;
use pagewarden::{Errno, VirtAddr};

use crate::process::{Process, Thread};
use crate::schedule::{self, Next};

use super::CallInProgress;

mod number {
    pub(super) const WRITE: u64 = 1;
    pub(super) const SCHED_YIELD: u64 = 24;
    pub(super) const GETPID: u64 = 39;
    pub(super) const CLONE: u64 = 56;
    pub(super) const FORK: u64 = 57;
    pub(super) const EXIT: u64 = 60;
    pub(super) const WAIT4: u64 = 61;
    pub(super) const ARCH_PRCTL: u64 = 158;
    pub(super) const GETTID: u64 = 186;
    pub(super) const SET_TID_ADDRESS: u64 = 218;
    pub(super) const EXIT_GROUP: u64 = 231;
}

/// `ECHILD`.
const NO_CHILD: Errno = Errno::Other(10);

const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
const ARCH_SET_FS: u64 = 0x1002;
const WNOHANG: u64 = 1;
/// User addresses end here.
const USER_END: u64 = Layout::X86_64.task_end.as_u64();
/// Bytes of a write that are copied at a time.
const PIECE: usize = 256;
/// Bytes that one write takes at most, so that it does not take long.
const WRITE_MOST: u64 = 4096;

/// There is nothing that can be opened or attached.
struct NoFiles<'a>(&'a Thread);

impl Files for NoFiles<'_> {
    fn open_file(&mut self, _fd: i32) -> Result<OpenFile, Errno> {
        Err(Errno::BadF)
    }

    fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
        Err(Errno::Inval)
    }

    fn string(&mut self, address: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        for at in (address..).take(len_max + 1) {
            let mut byte = [0];
            self.0.memory().space().copy_from_user(VirtAddr::new(at), &mut byte)?;
            match byte {
                [0] => return Ok(text),
                [byte] => text.push(byte),
            }
        }
        Err(Errno::Inval)
    }

    fn bytes(&mut self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return bytes;
        }
        bytes.resize(len, 0);
        let copied = self.0.memory().space().copy_from_user(VirtAddr::new(address), &mut bytes);
        bytes.truncate(copied.map_or_else(|fault| fault.copied, |()| len));
        bytes
    }
}

/// What a call comes to.
enum Answer {
    /// The thread goes on with this.
    Is(Result<u64, Errno>),
    /// The thread does something else.
    Then(Next),
}

/// Carries out the call that the thread's registers name.
pub(super) fn call(thread: &mut Thread) -> Next {
    let context = &thread.context;
    let arguments = [context.rdi, context.rsi, context.rdx, context.r10, context.r8, context.r9];
    match answer(thread, context.rax, arguments) {
        Answer::Is(result) => {
            thread.in_progress = None;
            thread.context.rax = result.unwrap_or_else(|errno| super::negative(errno).cast_unsigned());
            Next::Run
        }
        Answer::Then(Next::Wait(seen)) => {
            thread.in_progress.get_or_insert_with(CallInProgress::default);
            Next::Wait(seen)
        }
        Answer::Then(next) => {
            thread.context.rax = 0;
            next
        }
    }
}

fn answer(thread: &mut Thread, number: u64, arguments: [u64; 6]) -> Answer {
    let [a, b, c, d, _, _] = arguments;
    Answer::Is(match number {
        number::WRITE => write(thread, a, b, c),
        number::SCHED_YIELD => return Answer::Then(Next::Yield),
        number::GETPID => Ok(thread.process.id),
        number::GETTID | number::SET_TID_ADDRESS => Ok(thread.id),
        number::FORK => fork(thread, 0, 0),
        number::CLONE if a & CLONE_VM == 0 => fork(thread, a, d),
        number::CLONE => clone(thread, arguments),
        number::EXIT => return Answer::Then(exit_thread(thread, a)),
        number::EXIT_GROUP => {
            thread.process.end(exit_status(a));
            return Answer::Then(Next::End);
        }
        number::WAIT4 => return wait(thread, a, b, c),
        number::ARCH_PRCTL => set_fs(thread, a, b),
        _ => memory(thread, number, arguments),
    })
}

/// The calls about memory.
fn memory(thread: &Thread, number: u64, arguments: [u64; 6]) -> Result<u64, Errno> {
    let space = thread.memory().space();
    let Some(request) = linux::decode(number, arguments, &mut NoFiles(thread))? else { return Err(Errno::NoSys) };
    let result = space.call(&request).map_err(|refusal| refusal.errno);
    let program_break = space.with_manager(|manager| manager.program_break());
    linux::answer(&request, result, program_break)
}

/// write(2). As many bytes as could be read go to the log.
fn write(thread: &Thread, descriptor: u64, address: u64, bytes: u64) -> Result<u64, Errno> {
    if !matches!(descriptor, 1 | 2) {
        return Err(Errno::BadF);
    }
    if bytes > 0 && address.checked_add(bytes).is_none_or(|end| end > USER_END) {
        return Err(Errno::Fault);
    }
    let bytes = bytes.min(WRITE_MOST);
    let mut written = 0;
    while written < bytes {
        let mut piece = [0; PIECE];
        let len = usize::try_from(bytes - written).map_or(PIECE, |left| left.min(PIECE));
        let copied = thread.memory().space().copy_from_user(VirtAddr::new(address + written), &mut piece[..len]);
        let len = copied.map_or_else(|fault| fault.copied, |()| len);
        for chunk in piece[..len].utf8_chunks() {
            thread.process.write(chunk.valid());
        }
        written += len as u64;
        if let Err(fault) = copied {
            return if written > 0 { Ok(written) } else { Err(fault.into()) };
        }
    }
    Ok(written)
}

/// fork(2), and clone(2) without shared memory.
fn fork(thread: &Thread, flags: u64, child_id: u64) -> Result<u64, Errno> {
    let child = Process::fork(thread)?;
    let id = child.process.id;
    if flags & CLONE_CHILD_SETTID != 0 {
        // As in Linux, where it cannot be written it is not.
        let _ = child.memory().space().copy_to_user(VirtAddr::new(child_id), &pid(id));
    }
    schedule::add(child);
    Ok(id)
}

/// clone(2) of a thread.
fn clone(thread: &Thread, [flags, stack, parent_id, child_id, tls, _]: [u64; 6]) -> Result<u64, Errno> {
    if flags & CLONE_THREAD == 0 || stack == 0 || stack > USER_END {
        return Err(Errno::Inval);
    }
    let mut context = thread.context.clone();
    context.rax = 0;
    context.rsp = stack;
    if flags & CLONE_SETTLS != 0 {
        context.fs_base = user_address(tls)?;
    }
    let other = thread.beside(context)?;
    let id = other.id;
    for (flag, place) in [(CLONE_PARENT_SETTID, parent_id), (CLONE_CHILD_SETTID, child_id)] {
        if flags & flag != 0 {
            thread.memory().space().copy_to_user(VirtAddr::new(place), &pid(id))?;
        }
    }
    schedule::add(other);
    Ok(id)
}

/// A process identifier as user code has it.
fn pid(id: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = id.to_le_bytes();
    [a, b, c, d]
}

fn user_address(address: u64) -> Result<u64, Errno> {
    if address < USER_END { Ok(address) } else { Err(Errno::Perm) }
}

/// exit(2): the thread ends, and the process with its last one.
fn exit_thread(thread: &mut Thread, code: u64) -> Next {
    thread.status = exit_status(code);
    Next::End
}

/// What wait(2) tells of an exit.
const fn exit_status(code: u64) -> u64 {
    (code & 0xff) << 8
}

/// arch_prctl(2): where thread-local storage is.
fn set_fs(thread: &mut Thread, code: u64, address: u64) -> Result<u64, Errno> {
    if code != ARCH_SET_FS {
        return Err(Errno::Inval);
    }
    thread.context.fs_base = user_address(address)?;
    Ok(0)
}

/// wait4(2), for children that have been forked.
fn wait(thread: &Thread, which: u64, status: u64, options: u64) -> Answer {
    let seen = schedule::events();
    let mut children = thread.process.children.lock();
    // -1 is any; there are no groups.
    let is_meant = |child: &Arc<Process>| which.cast_signed() == -1 || child.id == which;
    if !children.iter().any(is_meant) {
        return Answer::Is(Err(NO_CHILD));
    }
    let over = children.iter().position(|child| is_meant(child) && child.status().is_some());
    let Some(over) = over else {
        return if options & WNOHANG != 0 { Answer::Is(Ok(0)) } else { Answer::Then(Next::Wait(seen)) };
    };
    let child = children.swap_remove(over);
    drop(children);
    let word = pid(child.status().unwrap_or_default());
    let told = match status {
        0 => Ok(()),
        _ => thread.memory().space().copy_to_user(VirtAddr::new(status), &word),
    };
    Answer::Is(told.map(|()| child.id).map_err(Errno::from))
}
