//! The calls that a cage has besides WASI: Linux's, for memory and processes.
//!
//! Owned here: how a guest's call becomes a request of the core, and its answer what the guest gets. All are imports of the
//! module `pagewarden`; their arguments are 32 bits each unless it says otherwise, and so is the result: a value, or an error
//! number with its sign turned, as from the kernel. `syscall` takes a number and six words of 64 bits, and has every call
//! that the core knows.
//!
//! Buffers are addresses of the cage. They are read and written through the tables of the space, so one that is not mapped
//! is `EFAULT`.

mod bulk;
mod memory;
mod process;
mod shm;

#[cfg(test)]
mod tests;

use std::sync::PoisonError;

use pagewarden::linux::{Files, OpenFile, Request, Segment, answer, decode};
use pagewarden::manager::Refusal;
use pagewarden::{Errno, VirtAddr};
use pagewarden_linux::host_machine::HostSpace;
use pagewarden_linux::traced::{UNKNOWN_CALL, call_name};
use wasmtime::Linker;

use crate::state::CageState;

/// Which module a guest imports the calls from.
const MODULE: &str = "pagewarden";

/// Adds them to what modules can import.
pub(crate) fn link(linker: &mut Linker<CageState>) -> wasmtime::Result<()> {
    memory::link(linker)?;
    shm::link(linker)?;
    process::link(linker)?;
    bulk::link(linker)
}

/// What a guest gets for an error.
pub(crate) fn errno_word(errno: Errno) -> i32 {
    -i32::from(errno.raw())
}

/// The same for a result that fits, as all do whose addresses and sizes are the cage's.
#[expect(clippy::cast_possible_truncation, reason = "results are below 4 GiB, and the ABI has 32 bits")]
const fn low_word(result: i64) -> i32 {
    result as i32
}

/// Carries out a system call of a guest: a value, or an error number with its sign turned.
pub(crate) fn system_call(state: &mut CageState, number: libc::c_long, args: [u64; 6]) -> i64 {
    let (told, refusal) = match number {
        libc::SYS_getpid => (Ok(state.process.pid().unsigned_abs().into()), None),
        libc::SYS_getppid => (Ok(state.process.parent().unsigned_abs().into()), None),
        libc::SYS_shmget => with_refusal(shm::get(state, args)),
        libc::SYS_shmctl => with_refusal(shm::control(state, args)),
        _ => memory_call(state, number.unsigned_abs(), args),
    };
    let name = call_name(number.unsigned_abs());
    if name != UNKNOWN_CALL {
        state.calls.count(name, refusal);
    }
    match told {
        Ok(value) => value.cast_signed(),
        Err(errno) => -i64::from(errno.raw()),
    }
}

/// What a guest is told, and why it was refused; what brk(2) answers is no error even then.
type Told = (Result<u64, Errno>, Option<Refusal>);

fn with_refusal(told: Result<u64, Errno>) -> Told {
    (told, told.err().map(Refusal::from))
}

fn memory_call(state: &mut CageState, number: u64, args: [u64; 6]) -> Told {
    match decode(number, args, &mut Descriptors(state)) {
        Ok(Some(request)) => request_of(&state.space, &request),
        Ok(None) => with_refusal(Err(Errno::NoSys)),
        Err(errno) => with_refusal(Err(errno)),
    }
}

/// Carries out a request; what the guest is told.
fn request_of(space: &HostSpace, request: &Request) -> Told {
    let result = space.call(request);
    let program_break = match request {
        Request::Brk { .. } => space.space().with_manager(|manager| manager.program_break()),
        _ => VirtAddr::new(0),
    };
    (answer(request, result.map_err(|refusal| refusal.errno), program_break), result.err())
}

/// What the core asks about a guest.
struct Descriptors<'a>(&'a mut CageState);

impl Files for Descriptors<'_> {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        let files = self.0.setup.files.as_ref().ok_or(Errno::BadF)?;
        files.lock().unwrap_or_else(PoisonError::into_inner).open_file(fd)
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        let credentials = shm::credentials(self.0);
        self.0.shared.segments().segment(&credentials, id)
    }

    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        let mut text = self.bytes(addr, len_max + 1);
        match text.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.truncate(end);
                Ok(text)
            }
            None if text.len() > len_max => Err(Errno::Inval),
            None => Err(Errno::Fault),
        }
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return bytes;
        }
        bytes.resize(len, 0);
        if let Err(copy) = self.0.space.read(VirtAddr::new(addr), &mut bytes) {
            bytes.truncate(copy.copied);
        }
        bytes
    }
}
