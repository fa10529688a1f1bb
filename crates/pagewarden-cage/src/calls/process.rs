//! fork, clone, exit, wait, and numbers of processes.

use pagewarden::{Errno, VirtAddr};
use wasmtime::{Caller, Linker};

use super::{MODULE, errno_word};
use crate::family::{FIRST, Patience, Which};
use crate::fork::{asyncify, clone};
use crate::state::CageState;
use crate::trap::ExitRequest;

/// `WNOHANG`.
const NO_HANG: u32 = 1;
/// `WUNTRACED | WCONTINUED`: nothing stops here, so they mean nothing.
const STOPPED: u32 = 2 | 8;

pub(super) fn link(linker: &mut Linker<CageState>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fork", |mut guest: Caller<'_, CageState>| asyncify::fork(&mut guest))?;
    linker.func_wrap(MODULE, "clone", |mut guest: Caller<'_, CageState>, index: u32, argument: i32| {
        clone::clone(&mut guest, index, argument)
    })?;
    linker.func_wrap(MODULE, "exit", |code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(ExitRequest(code)))
    })?;
    linker.func_wrap(MODULE, "wait", |guest: Caller<'_, CageState>, status: u32| wait(guest.data(), -1, status, 0))?;
    linker.func_wrap(MODULE, "waitpid", |guest: Caller<'_, CageState>, pid: i32, status: u32, options: u32| {
        wait(guest.data(), pid, status, options)
    })?;
    linker.func_wrap(MODULE, "getpid", |guest: Caller<'_, CageState>| guest.data().process.pid())?;
    linker.func_wrap(MODULE, "getppid", |guest: Caller<'_, CageState>| guest.data().process.parent())?;
    Ok(())
}

/// waitpid(2). A family is one group of processes, that of its first.
fn wait(state: &CageState, pid: i32, status: u32, options: u32) -> i32 {
    if options & !(NO_HANG | STOPPED) != 0 {
        return errno_word(Errno::Inval);
    }
    let which = match pid {
        -1 | 0 => Which::Any,
        group if group == -FIRST => Which::Any,
        pid => Which::One(pid),
    };
    let patience = if options & NO_HANG == 0 { Patience::Waits } else { Patience::Looks };
    match state.process.wait(which, patience) {
        Ok(None) => 0,
        Err(errno) => errno_word(errno),
        // As in Linux, the child is gone whether or not its status can be written.
        Ok(Some((pid, _))) if status == 0 => pid,
        Ok(Some((pid, word))) => {
            let written = state.space.write(VirtAddr::new(status.into()), &word.to_le_bytes());
            written.map_or_else(|fault| errno_word(fault.into()), |()| pid)
        }
    }
}
