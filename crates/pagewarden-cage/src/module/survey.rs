//! What is in a module: all that preparing it depends on, found in one pass that validates it too.

use std::collections::BTreeSet;

use wasmparser::{
    ConstExpr, DataKind, DataSectionReader, ElementItems, ElementSectionReader, Encoding, ExportSectionReader,
    ExternalKind, FuncValidatorAllocations, FunctionBody, FunctionSectionReader, GlobalSectionReader,
    ImportSectionReader, KnownCustom, MemorySectionReader, MemoryType, NameSectionReader, Operator, Parser, Payload,
    TableSectionReader, TypeRef, TypeSectionReader, ValidPayload, Validator, WasmFeatures,
};

use super::calls::MemoryCall;
use super::{ActiveSegment, LOWEST_DATA, MemoryLimits, ModuleError, RESERVED, offset};

/// What cages have of WebAssembly. References to the host's objects are not among it: no call of ours gives one out.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .difference(WasmFeatures::GC_TYPES);

const WASM_PAGE: u64 = 65_536;

/// A valid module, taken apart.
#[derive(Default)]
pub(super) struct Survey<'a> {
    pub(super) types: Option<TypeSectionReader<'a>>,
    pub(super) imports: Option<ImportSectionReader<'a>>,
    pub(super) functions: Option<FunctionSectionReader<'a>>,
    pub(super) tables: Option<TableSectionReader<'a>>,
    pub(super) globals: Option<GlobalSectionReader<'a>>,
    pub(super) exports: Option<ExportSectionReader<'a>>,
    pub(super) elements: Option<ElementSectionReader<'a>>,
    pub(super) bodies: Vec<FunctionBody<'a>>,
    pub(super) names: Option<NameSectionReader<'a>>,
    pub(super) start: Option<u32>,
    pub(super) limits: MemoryLimits,
    pub(super) active: Vec<ActiveSegment>,
    pub(super) segments: Vec<Option<Vec<u8>>>,
    /// Functions that are imported: the first ones by index.
    pub(super) imported_functions: u32,
    /// Functions that a reference can be to.
    pub(super) referenced: BTreeSet<u32>,
    /// Globals that can change.
    pub(super) mutable_globals: Vec<u32>,
    /// What the bodies need in place of instructions.
    pub(super) calls: BTreeSet<MemoryCall>,
    imported_globals: u32,
    memories: u32,
}

impl<'a> Survey<'a> {
    /// Takes a module apart.
    ///
    /// # Errors
    /// [`ModuleError`], each of its kinds.
    pub(super) fn new(wasm: &'a [u8]) -> Result<Self, ModuleError> {
        let mut survey = Self::default();
        let mut validator = Validator::new_with_features(FEATURES);
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        let mut allocations = FuncValidatorAllocations::default();
        for payload in parser.parse_all(wasm) {
            let payload = payload?;
            survey.check_shape(&payload)?;
            if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
                let mut function = function.into_validator(allocations);
                function.validate(&body)?;
                allocations = function.into_allocations();
            }
            survey.enter(payload)?;
        }
        if survey.memories == 0 {
            return Err(ModuleError::NoMemory);
        }
        Ok(survey)
    }

    /// What the validator would refuse too, or find nothing wrong with, but whose cure we know.
    fn check_shape(&mut self, payload: &Payload<'a>) -> Result<(), ModuleError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => Err(ModuleError::Component),
            Payload::ImportSection(imports) => check_imports(imports),
            Payload::MemorySection(memories) => self.check_memories(memories),
            _ => Ok(()),
        }
    }

    fn check_memories(&mut self, memories: &MemorySectionReader<'a>) -> Result<(), ModuleError> {
        for memory in memories.clone() {
            let memory = memory?;
            check_memory(memory)?;
            let bytes = |pages: u64| pages.saturating_mul(WASM_PAGE);
            self.limits =
                MemoryLimits { initial_bytes: bytes(memory.initial), maximum_bytes: memory.maximum.map(bytes) };
            self.memories += 1;
        }
        if self.memories > 1 { Err(ModuleError::SeveralMemories(self.memories)) } else { Ok(()) }
    }

    /// Notes a valid part.
    fn enter(&mut self, payload: Payload<'a>) -> Result<(), ModuleError> {
        match payload {
            Payload::TypeSection(types) => self.types = Some(types),
            Payload::ImportSection(imports) => self.enter_imports(imports)?,
            Payload::FunctionSection(functions) => self.functions = Some(functions),
            Payload::TableSection(tables) => self.tables = Some(tables),
            Payload::GlobalSection(globals) => self.enter_globals(globals)?,
            Payload::ExportSection(exports) => self.enter_exports(exports)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(elements) => self.enter_elements(elements)?,
            Payload::CodeSectionEntry(body) => self.enter_body(body)?,
            Payload::DataSection(data) => self.enter_data(&data)?,
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.names = Some(names);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn enter_imports(&mut self, imports: ImportSectionReader<'a>) -> Result<(), ModuleError> {
        for import in imports.clone().into_imports() {
            match import?.ty {
                TypeRef::Func(_) => self.imported_functions += 1,
                TypeRef::Global(_) => self.imported_globals += 1,
                _ => {}
            }
        }
        self.imports = Some(imports);
        Ok(())
    }

    fn enter_globals(&mut self, globals: GlobalSectionReader<'a>) -> Result<(), ModuleError> {
        for (global, index) in globals.clone().into_iter().zip(self.imported_globals..) {
            let global = global?;
            if global.ty.mutable {
                self.mutable_globals.push(index);
            }
            self.enter_references(&global.init_expr)?;
        }
        self.globals = Some(globals);
        Ok(())
    }

    fn enter_exports(&mut self, exports: ExportSectionReader<'a>) -> Result<(), ModuleError> {
        for export in exports.clone() {
            let export = export?;
            check_name(export.name)?;
            if export.kind == ExternalKind::Func {
                self.referenced.insert(export.index);
            }
        }
        self.exports = Some(exports);
        Ok(())
    }

    fn enter_elements(&mut self, elements: ElementSectionReader<'a>) -> Result<(), ModuleError> {
        for element in elements.clone() {
            match element?.items {
                ElementItems::Functions(functions) => {
                    for function in functions {
                        self.referenced.insert(function?);
                    }
                }
                ElementItems::Expressions(_, expressions) => {
                    for expression in expressions {
                        self.enter_references(&expression?)?;
                    }
                }
            }
        }
        self.elements = Some(elements);
        Ok(())
    }

    fn enter_references(&mut self, expression: &ConstExpr<'a>) -> Result<(), ModuleError> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.referenced.insert(function_index);
            }
        }
        Ok(())
    }

    /// References that a body takes need no look: to be valid they are to functions that segments, globals or exports name.
    fn enter_body(&mut self, body: FunctionBody<'a>) -> Result<(), ModuleError> {
        for operator in body.get_operators_reader()? {
            self.calls.extend(MemoryCall::of(&operator?).map(|(call, _)| call));
        }
        self.bodies.push(body);
        Ok(())
    }

    fn enter_data(&mut self, data: &DataSectionReader<'a>) -> Result<(), ModuleError> {
        for (datum, segment) in data.clone().into_iter().zip(0..) {
            let datum = datum?;
            match datum.kind {
                DataKind::Passive => self.segments.push(Some(datum.data.to_vec())),
                DataKind::Active { offset_expr, .. } => {
                    let offset = offset::constant(&offset_expr).ok_or(ModuleError::DataOffset(segment))?;
                    self.enter_active(segment, offset, datum.data)?;
                    self.segments.push(None);
                }
            }
        }
        Ok(())
    }

    fn enter_active(&mut self, segment: u32, offset: u32, bytes: &[u8]) -> Result<(), ModuleError> {
        let end = u64::from(offset).saturating_add(bytes.len() as u64);
        let memory = self.limits.initial_bytes;
        if end > memory {
            return Err(ModuleError::DataOutside { segment, end, memory });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if offset < LOWEST_DATA {
            return Err(ModuleError::LowData(offset));
        }
        self.active.push(ActiveSegment { offset, bytes: bytes.to_vec() });
        Ok(())
    }
}

fn check_imports(imports: &ImportSectionReader<'_>) -> Result<(), ModuleError> {
    for import in imports.clone().into_imports() {
        let import = import?;
        check_name(import.module)?;
        match import.ty {
            TypeRef::Memory(_) => return Err(ModuleError::ImportedMemory),
            TypeRef::Table(_) => return Err(ModuleError::ImportedTable(import.name.to_owned())),
            TypeRef::Global(global) if global.mutable => {
                return Err(ModuleError::ImportedGlobal(import.name.to_owned()));
            }
            // The validator takes them without asking for the feature, and nobody behind it has them.
            TypeRef::FuncExact(_) => return Err(ModuleError::ExactImport(import.name.to_owned())),
            _ => {}
        }
    }
    Ok(())
}

fn check_memory(memory: MemoryType) -> Result<(), ModuleError> {
    if memory.shared {
        return Err(ModuleError::SharedMemory);
    }
    if memory.memory64 {
        return Err(ModuleError::Memory64);
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), ModuleError> {
    if name.starts_with(RESERVED) { Err(ModuleError::ReservedName(name.to_owned())) } else { Ok(()) }
}
