//! How a guest ends, and what is known of it: an exit, or a trap with its address, kind of access and region.
//!
//! Owned here: what becomes of an error that Wasmtime returns. Where an access failed, the space that refused it says;
//! Wasmtime knows only that one did.

use std::fmt::{self, Write as _};

use pagewarden::VirtAddr;
use pagewarden::manager::{Access, Signal, SignalCode};
use pagewarden::pager::{CopyFault, Fault};
use pagewarden_linux::host_machine::{self, HostSpace};
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::error::CageError;
use crate::maps;
use crate::signals::last_offset;

/// Why a call into a guest did not return.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The guest called exit, by WASI or by the cage's own call.
    #[error("exit {0}")]
    Exit(i32),
    /// It did what it may not.
    #[error("{0}")]
    Trap(Box<CageTrap>),
    /// It was never called: there is no such function, or the arguments are of other types.
    #[error(transparent)]
    NotCalled(#[from] CageError),
}

/// What a guest did that it may not.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TrapKind {
    /// It touched an address where nothing is mapped.
    Hole,
    /// It touched memory that does not allow it.
    Rights,
    /// It touched a page beyond the end of what is mapped there.
    BeyondObject,
    /// It touched a page for which there is no memory.
    OutOfMemory,
    /// It called too deep.
    StackOverflow,
    /// It came to an `unreachable` instruction, as after abort(3).
    Unreachable,
    /// It divided by zero, or had a number that does not fit.
    Arithmetic,
    /// Something else that WebAssembly forbids, in Wasmtime's words.
    Other(String),
}

/// A guest was stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CageTrap {
    /// For what.
    pub kind: TrapKind,
    /// Where in the cage it touched memory, if it did; 4 GiB or more where an address and an offset add up to that.
    pub address: Option<u64>,
    /// How, where that is known.
    pub access: Option<Access>,
    /// The line of the cage's map that the address lies in.
    pub region: Option<String>,
    /// The guest's functions that were active, a line each, the last one called first.
    pub backtrace: String,
}

impl CageTrap {
    /// The number of the signal that a process of the host would die of.
    pub const fn signal(&self) -> i32 {
        match self.kind {
            TrapKind::Hole | TrapKind::Rights | TrapKind::StackOverflow => libc::SIGSEGV,
            TrapKind::BeyondObject => libc::SIGBUS,
            TrapKind::OutOfMemory => libc::SIGKILL,
            TrapKind::Unreachable => libc::SIGILL,
            TrapKind::Arithmetic => libc::SIGFPE,
            TrapKind::Other(_) => libc::SIGABRT,
        }
    }
}

impl fmt::Display for CageTrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            TrapKind::Hole => "nothing is mapped",
            TrapKind::Rights => "the mapping does not allow it",
            TrapKind::BeyondObject => "beyond the end of what is mapped",
            TrapKind::OutOfMemory => "out of memory",
            TrapKind::StackOverflow => "stack overflow",
            TrapKind::Unreachable => "unreachable code",
            TrapKind::Arithmetic => "arithmetic fault",
            TrapKind::Other(text) => text,
        })?;
        if let Some(address) = self.address {
            let how = match self.access {
                Some(Access::Read) => "load",
                Some(Access::Write) => "store",
                _ => "access",
            };
            write!(f, ": {how} at {address:#010x}")?;
        }
        if let Some(region) = &self.region {
            write!(f, " in {region}")?;
        }
        Ok(())
    }
}

/// The guest asked to end.
#[derive(Debug, thiserror::Error)]
#[error("exit {0}")]
pub(crate) struct ExitRequest(pub(crate) i32);

/// A host call on behalf of an instruction found that the guest may not do this.
#[derive(Debug, thiserror::Error)]
#[error("{access:?} at {address}: {fault}")]
pub(crate) struct RefusedCopy {
    address: VirtAddr,
    access: Access,
    fault: Fault,
}

impl RefusedCopy {
    /// For a copy that has failed.
    pub(crate) fn new(copy: &CopyFault, access: Access) -> Self {
        Self { address: copy.address, access, fault: copy.fault }
    }
}

/// What is known of the access that ended a guest.
struct Place {
    kind: TrapKind,
    address: Option<u64>,
    access: Option<Access>,
}

impl Place {
    const fn nowhere(kind: TrapKind) -> Self {
        Self { kind, address: None, access: None }
    }

    fn refused(address: VirtAddr, access: Access, fault: Fault) -> Self {
        let kind = match fault {
            Fault::OutOfMemory => TrapKind::OutOfMemory,
            Fault::Signal(signal) if signal.signal == Signal::Bus => TrapKind::BeyondObject,
            Fault::Signal(signal) if signal.code == SignalCode::MapErr => TrapKind::Hole,
            Fault::Signal(_) => TrapKind::Rights,
        };
        Self { kind, address: Some(address.as_u64()), access: Some(access) }
    }
}

/// How the guest of `space` has ended, from the error that Wasmtime returned on this thread.
pub(crate) fn ended(error: &Error, space: &HostSpace) -> Ended {
    if let Some(ExitRequest(code)) = error.downcast_ref() {
        return Ended::Exit(*code);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Ended::Exit(*code);
    }
    let Place { kind, address, access } = place(error, space);
    let region = address.and_then(|address| maps::line(space, VirtAddr::new(address)));
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(active).unwrap_or_default();
    Ended::Trap(Box::new(CageTrap { kind, address, access, region, backtrace }))
}

/// A line for each function that was active, the last one called first: its name, or its number if it has none.
fn active(backtrace: &WasmBacktrace) -> String {
    let mut text = String::new();
    for (depth, frame) in backtrace.frames().iter().enumerate() {
        let number = frame.func_index();
        let _ = match frame.func_name() {
            Some(name) => writeln!(text, "{depth:>4}: {name}"),
            None => writeln!(text, "{depth:>4}: function {number}"),
        };
    }
    text
}

fn place(error: &Error, space: &HostSpace) -> Place {
    let refused = host_machine::take_refused();
    if let Some(copy) = error.downcast_ref::<RefusedCopy>() {
        return Place::refused(copy.address, copy.access, copy.fault);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::MemoryOutOfBounds) => match refused {
            Some(refused) => Place::refused(refused.address, refused.access, refused.fault),
            None => Place { address: last_offset(space), ..Place::nowhere(TrapKind::Hole) },
        },
        Some(Trap::StackOverflow) => Place::nowhere(TrapKind::StackOverflow),
        Some(Trap::UnreachableCodeReached) => Place::nowhere(TrapKind::Unreachable),
        Some(Trap::IntegerDivisionByZero | Trap::IntegerOverflow | Trap::BadConversionToInteger) => {
            Place::nowhere(TrapKind::Arithmetic)
        }
        _ => Place::nowhere(TrapKind::Other(error.root_cause().to_string())),
    }
}
