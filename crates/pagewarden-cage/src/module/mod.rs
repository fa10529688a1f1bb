//! Modules made ready for a cage: bytes in, bytes out.
//!
//! Owns what of a module is changed before it is compiled, and which modules are refused:
//!
//! * The one memory is made as large as a cage can be, so that compiled code leaves all checks of addresses to the mappings.
//! * Instructions on ranges of memory become calls of imports ([`calls::MemoryCall`]): the runtime would carry them out
//!   itself, and a hole would be a fault in the host's code.
//! * Data segments and the start function are taken out. Whoever starts a cage maps the data and calls the
//!   function; a fork does neither.
//! * What a fork carries over is exported: the globals that can change, the tables, and every function that a reference
//!   can be to.
//!
//! Compilation, linking and instantiation stay outside, as does what the imports do.
//!
//! Invariants:
//! * Any bytes are either refused or prepared; what is prepared is a valid module.
//! * No instruction of a prepared module reads or writes memory but plain loads and stores.
//! * Names in [`ExportNames`] and the imports that are added cannot clash with the module's own.

mod calls;
mod offset;
mod rewrite;
mod survey;
#[cfg(test)]
mod tests;

use survey::Survey;

/// Names that begin like this are ours, of exports and of modules to import from.
const RESERVED: &str = "pagewarden:";

/// Nothing is ever mapped below: a guest's null pointer and what is near it.
const LOWEST_DATA: u32 = 4096;

/// Why a module cannot run in a cage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModuleError {
    /// Not a module, or one that uses what cages do not have.
    #[error("not a WebAssembly module that a cage can run: {0}")]
    Invalid(String),
    /// A component.
    #[error("a component, and cages run modules: build a core module, for wasm32-wasip1 say")]
    Component,
    /// No memory at all.
    #[error("the module has no memory: define one, (memory 1) say")]
    NoMemory,
    /// The memory is to come from elsewhere.
    #[error("the module imports its memory: a cage's is its own, so link without --import-memory")]
    ImportedMemory,
    /// A memory for threads.
    #[error("the module's memory is shared: there are no threads in a cage, so compile without -pthread and -matomics")]
    SharedMemory,
    /// Addresses of 64 bits.
    #[error("the module's memory has 64-bit addresses, and a cage has 32-bit ones: compile for wasm32")]
    Memory64,
    /// More than one memory.
    #[error("the module has {0} memories, and a cage has one")]
    SeveralMemories(u32),
    /// A table that is to come from elsewhere.
    #[error("the module imports the table {0:?}: a cage's tables are its own, so link without --import-table")]
    ImportedTable(String),
    /// A variable that is to come from elsewhere.
    #[error(
        "the module imports the mutable global {0:?}: a cage's are its own, so link statically, without -shared or -pie"
    )]
    ImportedGlobal(String),
    /// A function that is to be of one type and none derived from it.
    #[error("the module imports the function {0:?} with an exact type: compile without custom descriptors")]
    ExactImport(String),
    /// A name that is ours.
    #[error("the name {0:?} begins with \"pagewarden:\", which is reserved: use another")]
    ReservedName(String),
    /// Data where nothing is ever mapped.
    #[error("there is data at address {0:#x}, and NULL is never mapped: link with -Wl,--global-base=65536")]
    LowData(u32),
    /// Data behind the memory's initial end.
    #[error("data segment {segment} ends at {end:#x}, behind the initial memory of {memory:#x} bytes")]
    DataOutside {
        /// Which segment.
        segment: u32,
        /// Where it ends.
        end: u64,
        /// Initial bytes of the memory.
        memory: u64,
    },
    /// Data whose place is known only when the module is instantiated.
    #[error("the address of data segment {0} is not a constant: link statically, without -shared or -pie")]
    DataOffset(u32),
}

impl From<wasmparser::Error> for ModuleError {
    fn from(error: wasmparser::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// A module made ready, and what was taken out of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prepared {
    /// The module to compile.
    pub(crate) wasm: Vec<u8>,
    /// The memory as the module has it.
    pub(crate) memory: MemoryLimits,
    /// Data that is in memory from the beginning, in order: later ones overwrite.
    pub(crate) active: Vec<ActiveSegment>,
    /// By index, the segments that `memory.init` can copy from. Those which were in memory from the beginning are
    /// dropped already.
    pub(crate) segments: Vec<Option<Vec<u8>>>,
    /// What is exported for us.
    pub(crate) names: ExportNames,
}

/// How large a memory is and may become.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct MemoryLimits {
    pub(crate) initial_bytes: u64,
    pub(crate) maximum_bytes: Option<u64>,
}

/// Bytes that are in memory from the beginning: at least one, none below [`LOWEST_DATA`], all inside the initial memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) offset: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Exports that a prepared module has besides its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExportNames {
    pub(crate) memory: String,
    /// The start function, to be called once.
    pub(crate) start: Option<String>,
    /// The globals that can change.
    pub(crate) globals: Vec<String>,
    pub(crate) tables: Vec<String>,
    /// The functions that a reference can be to.
    pub(crate) functions: Vec<String>,
}

/// Makes a module ready for a cage.
///
/// # Errors
/// [`ModuleError`]: it is not a module, or not one that a cage can run.
pub(crate) fn prepare(wasm: &[u8]) -> Result<Prepared, ModuleError> {
    let survey = Survey::new(wasm)?;
    let (wasm, names) = rewrite::rewrite(&survey)?;
    Ok(Prepared { wasm, memory: survey.limits, active: survey.active, segments: survey.segments, names })
}
