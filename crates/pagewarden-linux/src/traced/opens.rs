//! Files opened for writing: the `mem` file of a process passes over the rights of its pages.
//!
//! A write through it makes private pages of what cannot be written, W^X or not, paid for or not. So it is
//! not opened: a call that names it is refused before it runs. The name lies in the guest's memory and may
//! be a link, or be changed by another thread while the host reads it; so what has been opened is looked at
//! as well, and a guest that got there by such a way is killed before it can do more than begin to write.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use pagewarden::Errno;

use super::calls::as_int;
use super::files;
use super::inject::StoppedCall;
use super::process::ExitAction;
use super::ptrace::{self, Tid, Until};
use super::tracer::{Tracer, resume};

/// Longer paths the host refuses (`PATH_MAX - 1`).
const PATH_LEN_MAX: usize = 4095;

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
        let opened = ptrace::result_register(tid).ok().and_then(|value| i32::try_from(value).ok());
        if opened.is_some_and(|fd| is_process_memory(tid, fd)) {
            let process = self.tree.tasks.get(&tid).map_or(tid, |task| task.process);
            return self.kill_with_hint(process, "it opened the memory of a process for writing in a roundabout way");
        }
        resume(tid, Until::Event, 0);
    }
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

/// Whether the descriptor is a `mem` file of a process file system; names there are the kernel's own.
fn is_process_memory(tid: Tid, fd: i32) -> bool {
    files::fd_name(tid, fd).is_ok_and(|name| is_called_mem(name.as_bytes()))
        && files::file_system(&files::fd_path(tid, fd))
            .is_some_and(|system| system.filesystem_type() == PROC_SUPER_MAGIC)
}
