//! WASI preview 1 for cages: Wasmtime's own, which never sees a cage's memory.
//!
//! Wasmtime's functions take the memory of their caller as one slice of bytes. A cage's memory is no such thing: pages come
//! and go under it, and a hole in it would end the host. So each function is called on a memory of the host's instead:
//! what it reads is copied there first, what it wrote is copied back ([`transfer`]), and both go through the cage's map as
//! all access by the host does. A hole is `EFAULT`, also where Wasmtime would end the program.
//!
//! Owned here: that memory ([`bounce`]), what each function's parameters are ([`table`]), and each process's descriptors
//! ([`context`]). Stays outside: what files, clocks and pipes do; that is Wasmtime's.
//!
//! Differs from Wasmtime's own: no bad argument ends the program, there is an error number; addresses need no alignment; buffers of one call are used together, not the first alone;
//! a call moves at most 1 MiB; a path has at most as much; any exit status is one, not only those below 126.

mod bounce;
mod context;
mod table;
mod transfer;

use std::sync::Arc;

use wasmtime::{Caller, Linker, Result, Val, format_err};
use wasmtime_wasi::I32Exit;

use self::bounce::{Bounce, Trampolines};
pub(crate) use self::context::Wasi;
use self::table::{Kind, kind};
use crate::state::CageState;

/// What programs import WASI's functions from.
const MODULE: &str = "wasi_snapshot_preview1";

/// An error number of WASI, which are not Linux's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Errno(i32);

impl Errno {
    const SUCCESS: Self = Self(0);
    const FAULT: Self = Self(21);
    const INVAL: Self = Self(28);
    const NAMETOOLONG: Self = Self(37);
    const NOMEM: Self = Self(48);
}

/// Why a call did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// The program is told.
    Errno(Errno),
    /// The program ends.
    Ended(wasmtime::Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Ended(error)
    }
}

/// Gives cages that `linker` makes all of WASI's functions.
pub(crate) fn link(linker: &mut Linker<CageState>) -> Result<()> {
    let trampolines = Arc::new(Trampolines::new(linker.engine())?);
    for (number, (name, ty)) in trampolines.functions().iter().enumerate() {
        let kind = kind(name).ok_or_else(|| format_err!("it is not known which addresses {name} takes"))?;
        let trampolines = Arc::clone(&trampolines);
        linker.func_new(MODULE, name, ty.clone(), move |mut caller, params, results| {
            let errno = match call(&mut caller, &trampolines, (number, kind), params) {
                Ok(()) => Errno::SUCCESS,
                Err(Failure::Errno(errno)) => errno,
                Err(Failure::Ended(error)) => return Err(error),
            };
            if let [result] = results {
                *result = Val::I32(errno.0);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Calls a function that is called as `kind` says.
fn call(
    caller: &mut Caller<'_, CageState>,
    trampolines: &Trampolines,
    (number, kind): (usize, Kind),
    params: &[Val],
) -> Result<(), Failure> {
    if kind == Kind::Exit {
        let status = params.first().and_then(Val::i32).unwrap_or_default();
        return Err(Failure::Ended(I32Exit(status).into()));
    }
    let bounce = bounce(caller, trampolines)?;
    match kind {
        Kind::Plain(args) => transfer::plain((caller, &bounce), number, args, params),
        Kind::Strings(sizes) => transfer::strings((caller, &bounce), [number, trampolines.number(sizes)?], params),
        Kind::DirectoryName => {
            let length = trampolines.number("fd_prestat_get")?;
            transfer::directory_name((caller, &bounce), [number, length], params)
        }
        Kind::Fill => transfer::fill((caller, &bounce), number, params),
        Kind::Exit => Ok(()),
    }
}

/// The memory that the cage's calls work on. The first call makes it, and opens what the process was started with.
fn bounce(caller: &mut Caller<'_, CageState>, trampolines: &Trampolines) -> Result<Bounce> {
    if let Some(bounce) = caller.data().wasi.as_ref().and_then(Wasi::bounce) {
        return Ok(bounce);
    }
    let setup = Arc::clone(&caller.data().setup);
    let bounce = Bounce::new(caller, trampolines)?;
    caller.data_mut().wasi = Some(Wasi::new(&setup, bounce.clone())?);
    Ok(bounce)
}

#[cfg(test)]
mod tests;
