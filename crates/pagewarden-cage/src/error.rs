//! Why something about cages does not work: the one error of the crate's functions.

use std::io;

use pagewarden::Errno;
use pagewarden::manager::Refusal;
use pagewarden_linux::host_machine::HostMemoryError;

use crate::module::ModuleError;
use crate::trap::Ended;

/// Why there is no engine, no program or no cage.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// A figure of the options that nothing can be made of.
    #[error("{0}")]
    Options(&'static str),
    /// The host has no memory to be RAM.
    #[error("the host gives no memory for cages: {0}")]
    Memory(#[from] HostMemoryError),
    /// The host has no addresses for a cage.
    #[error("the host gives no addresses for a cage: {0}")]
    Reservation(#[source] io::Error),
    /// The text is not that of a module.
    #[error("this is no WebAssembly text: {0}")]
    Text(#[source] wat::Error),
    /// The module cannot run in a cage.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Wasmtime refuses: to compile, to link, or to make an instance.
    #[error("{what}: {source:#}")]
    Wasmtime {
        /// What was tried.
        what: &'static str,
        /// Wasmtime's reason.
        source: wasmtime::Error,
    },
    /// A limit, or a call that Linux would refuse too.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// There are as many processes as there may be.
    #[error("there are {0} processes already, and there may be no more")]
    TooManyProcesses(usize),
    /// The host has no thread for it.
    #[error("the host gives no thread: {0}")]
    Thread(#[source] io::Error),
    /// The function that the module wants to be called at its start did not return.
    #[error("the start function of the module did not return: {0}")]
    Start(Box<Ended>),
    /// The program exports no such function.
    #[error("the program exports no function {0:?}")]
    NoFunction(String),
    /// The arguments of a call are not what the function takes.
    #[error("the function {0:?} takes other arguments")]
    Arguments(String),
}

impl CageError {
    /// Says what Wasmtime was asked for.
    pub(crate) fn wasmtime(what: &'static str) -> impl FnOnce(wasmtime::Error) -> Self {
        move |source| Self::Wasmtime { what, source }
    }

    /// Says what a request was for.
    pub(crate) fn refused<R: Into<Refusal>>(what: &'static str) -> impl FnOnce(R) -> Self {
        move |refusal| Self::Refused { what, refusal: refusal.into() }
    }

    /// What fork(2) says for it.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Refused { refusal, .. } => refusal.errno,
            Self::TooManyProcesses(_) | Self::Thread(_) => Errno::Again,
            _ => Errno::NoMem,
        }
    }
}
