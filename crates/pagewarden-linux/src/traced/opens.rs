//! Files opened for writing: the `mem` file of a process passes over the rights of its pages.
//!
//! A write through it makes private pages of what cannot be written, W^X or not, paid for or not. So it is
//! not opened: a call that names it is refused before it runs. The name lies in the guest's memory and may
//! be a link, or be changed by another thread while the host reads it; so what has been opened is looked at
//! as well. Then the descriptor is closed again. If another thread has the same descriptors it may be writing
//! already, and its process is killed before it can do more than begin.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use pagewarden::Errno;

use super::calls::as_int;
use super::files;
use super::inject::StoppedCall;
use super::process::ExitAction;
use super::ptrace::{Tid, Until};
use super::tracer::{Tracer, resume};

/// Longer paths the host refuses (`PATH_MAX - 1`).
const PATH_LEN_MAX: usize = 4095;
/// `KCMP_FILES` (linux/kcmp.h).
const KCMP_FILES: i32 = 2;

impl Tracer<'_> {
    /// A file is about to be opened for writing.
    pub(super) fn open_call(&mut self, call: StoppedCall) {
        if names_process_memory(&call) {
            return call.answer(Err(Errno::Acces));
        }
        if let Some(task) = self.tree.tasks.get_mut(&call.tid()) {
            task.on_exit = Some(ExitAction::CheckOpened);
        }
        call.release(Until::Syscall);
    }

    /// A file has been opened for writing.
    pub(super) fn check_opened(&mut self, tid: Tid) {
        let Some(mut call) = StoppedCall::at_exit(tid, Rc::clone(&self.events), None) else { return };
        let Some(fd) = call.own_result().ok().map(as_int).filter(|fd| is_process_memory(tid, *fd)) else {
            return resume(tid, Until::Event, 0);
        };
        let is_shared = self.tree.tasks.keys().any(|other| *other != tid && shares_descriptors(tid, *other));
        let close = [u64::from(fd.cast_unsigned()), 0, 0, 0, 0, 0];
        if is_shared || call.run(libc::SYS_close.cast_unsigned(), close).is_err() {
            let process = self.tree.tasks.get(&tid).map_or(tid, |task| task.process);
            return self.kill_with_hint(process, "it opened the memory of a process for writing in a roundabout way");
        }
        call.answer(Err(Errno::Acces));
    }
}

/// Whether two threads have one table of descriptors; so it is assumed if the host does not say.
fn shares_descriptors(tid: Tid, other: Tid) -> bool {
    // SAFETY: plain numbers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, tid, other, KCMP_FILES, 0, 0) };
    let is_gone = order < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    order <= 0 && !is_gone
}

/// Whether the path that the call names leads to the `mem` file of a process.
fn names_process_memory(call: &StoppedCall) -> bool {
    let [first, second, ..] = call.args();
    let (folder, name) =
        if call.number().cast_signed() == libc::SYS_openat { (as_int(first), second) } else { (libc::AT_FDCWD, first) };
    let Ok(path) = files::read_string(call.tid(), name, PATH_LEN_MAX) else { return false };
    if !is_called_mem(&path) {
        return false;
    }
    let base = match (path.first(), folder) {
        (Some(b'/'), _) => format!("/proc/{}/root", call.tid()),
        (_, libc::AT_FDCWD) => format!("/proc/{}/cwd/", call.tid()),
        (_, fd) => format!("{}/", files::fd_path(call.tid(), fd)),
    };
    let path = [base.as_bytes(), &path].concat();
    statfs(Path::new(OsStr::from_bytes(&path))).is_ok_and(|system| system.filesystem_type() == PROC_SUPER_MAGIC)
}

fn is_called_mem(path: &[u8]) -> bool {
    path.rsplit(|byte| *byte == b'/').next() == Some(b"mem")
}

/// Whether the descriptor is a `mem` file of a process file system. Bound elsewhere it has another name, but
/// never another mode, which no other file of a process has.
fn is_process_memory(tid: Tid, fd: i32) -> bool {
    let path = files::fd_path(tid, fd);
    let is_in_proc = || files::file_system(&path).is_some_and(|system| system.filesystem_type() == PROC_SUPER_MAGIC);
    let is_named_so = files::fd_name(tid, fd).is_ok_and(|name| is_called_mem(name.as_bytes()));
    let has_mode = || files::status(&path).is_ok_and(|status| status.is_owners_alone());
    (is_named_so || has_mode()) && is_in_proc()
}
