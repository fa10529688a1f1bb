//! Programs: a compiled module, and the image of its data that all its cages share until they store to it.
//!
//! Owned here: what is made once for a program. Outside: the change of the module before it is compiled
//! ([`crate::module`]), and processes.

use std::fmt;
use std::sync::Arc;

use pagewarden::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, Request};
use pagewarden::object::{FileId, ObjectSource};
use pagewarden::{MemoryObject, ObjectKind, PAGE_SIZE, VirtAddr};
use pagewarden_linux::host_machine::HostSpace;
use wasmparser::{Operator, Parser, Payload};
use wasmtime::{InstancePre, Module, ModuleExport};

use crate::engine::Shared;
use crate::error::CageError;
use crate::module::{self, ActiveSegment, MemoryLimits, Prepared};
use crate::state::CageState;

/// Where the memory of a cage begins: below it, nothing is ever mapped.
pub(crate) const LOWEST: u64 = PAGE_SIZE;
/// Data that is not further apart is mapped as one.
const GAP_BYTES: u64 = 16 * PAGE_SIZE;
/// `PROT_READ | PROT_WRITE`.
const READ_WRITE: u64 = 3;

/// A program that cages can run. Clones are the same.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<ProgramParts>);

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// What is made once.
pub(crate) struct ProgramParts {
    name: String,
    pub(crate) instance: InstancePre<CageState>,
    pub(crate) memory: MemoryLimits,
    /// By index, what `memory.init` copies from.
    pub(crate) segments: Vec<Option<Vec<u8>>>,
    /// The function to call once.
    pub(crate) start: Option<String>,
    pub(crate) exports: Exports,
    data: Vec<Data>,
}

/// What a fork copies, and what it knows functions by.
pub(crate) struct Exports {
    pub(crate) globals: Vec<ModuleExport>,
    pub(crate) tables: Vec<ModuleExport>,
    pub(crate) functions: Vec<ModuleExport>,
    /// Whether any instruction changes a table.
    pub(crate) tables_change: bool,
}

/// Data that is there from the beginning, whole pages of it.
struct Data {
    start: u64,
    end: u64,
    /// Where in the image.
    offset: u64,
    image: Arc<MemoryObject>,
}

impl Program {
    pub(crate) fn new(shared: &Arc<Shared>, wasm_or_wat: &[u8], name: &str) -> Result<Self, CageError> {
        let wasm = wat::parse_bytes(wasm_or_wat).map_err(CageError::Text)?;
        let prepared = module::prepare(&wasm)?;
        let module = Module::new(&shared.engine, &prepared.wasm);
        let module = module.map_err(CageError::wasmtime("the module cannot be compiled"))?;
        let instance = shared.linker.instantiate_pre(&module);
        let instance = instance.map_err(CageError::wasmtime("the module wants what a cage does not have"))?;
        let exports = Exports::new(&module, &prepared)?;
        let data = image(shared, name, &prepared.active)?;
        let Prepared { memory, segments, names, .. } = prepared;
        let start = names.start;
        Ok(Self(Arc::new(ProgramParts { name: name.into(), instance, memory, segments, start, exports, data })))
    }

    /// What maps call its data.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How to build the program so that fork(2) works in it, if it imports fork and was not built so.
    pub fn fork_advice(&self) -> Option<&'static str> {
        let module = self.0.instance.module();
        let imports = module.imports().any(|import| import.module() == "pagewarden" && import.name() == "fork");
        let is_prepared = module.get_export("asyncify_start_unwind").is_some();
        (imports && !is_prepared).then_some(
            "fork() is ENOSYS: build with wasm-opt --asyncify --pass-arg=asyncify-imports@pagewarden.fork, or use clone()",
        )
    }

    /// The end of what is in memory at the beginning; the break starts there.
    pub(crate) fn initial_end(&self) -> u64 {
        self.0.memory.initial_bytes.max(LOWEST)
    }

    /// Maps data and zeros in a new space.
    pub(crate) fn map(&self, space: &HostSpace) -> Result<(), CageError> {
        let mut next = LOWEST;
        for data in &self.0.data {
            map_zeros(space, next, data.start)?;
            let traits = FileTraits::READABLE | FileTraits::REGULAR;
            let file = OpenFile { object: Arc::clone(&data.image), traits };
            map(space, (data.start, data.end), MapSource::File(file), data.offset)?;
            next = data.end;
        }
        map_zeros(space, next, self.initial_end())
    }
}

impl Exports {
    fn new(module: &Module, prepared: &Prepared) -> Result<Self, CageError> {
        let names = &prepared.names;
        let find = |names: &[String]| names.iter().filter_map(|name| module.get_export_index(name)).collect();
        Ok(Self {
            globals: find(&names.globals),
            tables: find(&names.tables),
            functions: find(&names.functions),
            tables_change: changes_tables(&prepared.wasm).map_err(module::ModuleError::from)?,
        })
    }
}

/// Whether any instruction of the module changes a table.
fn changes_tables(wasm: &[u8]) -> Result<bool, wasmparser::BinaryReaderError> {
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CodeSectionEntry(body) = payload? else { continue };
        for operator in body.get_operators_reader()? {
            let changes = matches!(
                operator?,
                Operator::TableSet { .. }
                    | Operator::TableGrow { .. }
                    | Operator::TableFill { .. }
                    | Operator::TableCopy { .. }
                    | Operator::TableInit { .. }
            );
            if changes {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Puts the data into an object, each run of pages that has some behind the one before.
fn image(shared: &Shared, name: &str, active: &[ActiveSegment]) -> Result<Vec<Data>, CageError> {
    let runs = runs(active);
    let bytes = runs.iter().map(|(start, end)| end - start).sum();
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let pager = shared.memory.pager();
    let kind = ObjectKind::File(FileId { device: 0, inode: 0 });
    let image = pager.new_object(kind, name, ObjectSource::Anonymous { bytes });
    let image = image.map_err(CageError::refused("no memory for the program's data"))?;
    let mut data = Vec::new();
    let mut offset = 0;
    for (start, end) in runs {
        data.push(Data { start, end, offset, image: Arc::clone(&image) });
        offset += end - start;
    }
    for segment in active {
        let at = u64::from(segment.offset);
        let Some(run) = data.iter().find(|run| (run.start..run.end).contains(&at)) else { continue };
        let written = pager.write(&image, run.offset + (at - run.start), &segment.bytes);
        written.map_err(CageError::refused("no memory for the program's data"))?;
    }
    Ok(data)
}

/// Runs of whole pages that have data.
fn runs(active: &[ActiveSegment]) -> Vec<(u64, u64)> {
    let pages = |segment: &ActiveSegment| {
        let start = u64::from(segment.offset);
        let end = start + segment.bytes.len() as u64;
        (start / PAGE_SIZE * PAGE_SIZE, end.next_multiple_of(PAGE_SIZE))
    };
    let mut sorted: Vec<(u64, u64)> = active.iter().map(pages).collect();
    sorted.sort_unstable();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (start, end) in sorted {
        match runs.last_mut() {
            Some(last) if start <= last.1 + GAP_BYTES => last.1 = last.1.max(end),
            _ => runs.push((start, end)),
        }
    }
    runs
}

fn map_zeros(space: &HostSpace, start: u64, end: u64) -> Result<(), CageError> {
    if start >= end {
        return Ok(());
    }
    map(space, (start, end), MapSource::Anonymous, 0)
}

fn map(space: &HostSpace, (start, end): (u64, u64), source: MapSource, offset: u64) -> Result<(), CageError> {
    let mut flags = MapFlags::PRIVATE | MapFlags::FIXED;
    flags.set(MapFlags::ANONYMOUS, matches!(source, MapSource::Anonymous));
    let request = MmapRequest { addr: start, len: end - start, prot: READ_WRITE, flags, source, offset };
    let mapped = space.call(&Request::Mmap(request)).map_err(CageError::refused("no memory for the program"))?;
    debug_assert_eq!(VirtAddr::new(mapped), VirtAddr::new(start));
    Ok(())
}
