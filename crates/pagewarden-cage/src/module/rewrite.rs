//! A module written again, with what a cage needs changed.
//!
//! Sections of other tools are left out, but for names: they speak of offsets in code, which are others now.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, ElementSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    ImportSection, Instruction, MemorySection, MemoryType, Module, NameSection, TableSection, TypeSection,
};
use wasmparser::{FunctionBody, Name, NameSectionReader};

use super::calls::{IMPORT_MODULE, MemoryCall};
use super::survey::Survey;
use super::{ExportNames, ModuleError, RESERVED};

/// The memory of every cage, in pages of 64 KiB: all that 32 bits can address.
const CAGE_PAGES: u64 = 65_536;

impl From<Error<Infallible>> for ModuleError {
    fn from(error: Error<Infallible>) -> Self {
        match error {
            Error::ParseError(error) => error.into(),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// The module to compile, and what it exports for us.
///
/// # Errors
/// [`ModuleError::Invalid`] for what cannot be written.
pub(super) fn rewrite(survey: &Survey<'_>) -> Result<(Vec<u8>, ExportNames), ModuleError> {
    let mut rewriter = Rewriter { survey };
    let (exports, names) = rewriter.exports()?;
    let mut module = Module::new();
    let (types, imports) = rewriter.types_and_imports()?;
    module.section(&types).section(&imports).section(&rewriter.functions()?);
    module.section(&rewriter.tables()?).section(&memory()).section(&rewriter.globals()?);
    module.section(&exports).section(&rewriter.elements()?).section(&rewriter.code()?);
    if let Some(section) = &survey.names {
        module.section(&rewriter.names(section.clone()));
    }
    Ok((module.finish(), names))
}

struct Rewriter<'s, 'a> {
    survey: &'s Survey<'a>,
}

impl Reencode for Rewriter<'_, '_> {
    type Error = Infallible;

    /// Our imports are behind the module's own ones, and before its functions.
    fn function_index(&mut self, function: u32) -> Result<u32, Error<Infallible>> {
        Ok(self.shifted(function))
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        let mut function: Function = self.new_function_with_parsed_locals(&body)?;
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            if let Some((call, segment)) = MemoryCall::of(&operator) {
                if let Some(segment) = segment {
                    function.instruction(&Instruction::I32Const(segment.cast_signed()));
                }
                function.instruction(&Instruction::Call(self.import_index(call)));
            } else {
                function.instruction(&self.instruction(operator)?);
            }
        }
        code.function(&function);
        Ok(())
    }
}

impl Rewriter<'_, '_> {
    /// Names can be of functions that there are not, with any number.
    fn shifted(&self, function: u32) -> u32 {
        if function < self.survey.imported_functions {
            return function;
        }
        (self.survey.calls.iter()).fold(function, |index, _| index.saturating_add(1))
    }

    fn import_index(&self, call: MemoryCall) -> u32 {
        (self.survey.calls.range(..call)).fold(self.survey.imported_functions, |index, _| index.saturating_add(1))
    }

    fn types_and_imports(&mut self) -> Result<(TypeSection, ImportSection), Error<Infallible>> {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        if let Some(section) = &self.survey.types {
            self.parse_type_section(&mut types, section.clone())?;
        }
        if let Some(section) = &self.survey.imports {
            self.parse_import_section(&mut imports, section.clone())?;
        }
        for call in &self.survey.calls {
            let (parameters, results) = call.signature();
            imports.import(IMPORT_MODULE, call.name(), EntityType::Function(types.len()));
            types.ty().function(parameters.iter().copied(), results.iter().copied());
        }
        Ok((types, imports))
    }

    fn functions(&mut self) -> Result<FunctionSection, Error<Infallible>> {
        let mut functions = FunctionSection::new();
        if let Some(section) = &self.survey.functions {
            self.parse_function_section(&mut functions, section.clone())?;
        }
        Ok(functions)
    }

    fn tables(&mut self) -> Result<TableSection, Error<Infallible>> {
        let mut tables = TableSection::new();
        if let Some(section) = &self.survey.tables {
            self.parse_table_section(&mut tables, section.clone())?;
        }
        Ok(tables)
    }

    fn globals(&mut self) -> Result<GlobalSection, Error<Infallible>> {
        let mut globals = GlobalSection::new();
        if let Some(section) = &self.survey.globals {
            self.parse_global_section(&mut globals, section.clone())?;
        }
        Ok(globals)
    }

    fn elements(&mut self) -> Result<ElementSection, Error<Infallible>> {
        let mut elements = ElementSection::new();
        if let Some(section) = &self.survey.elements {
            self.parse_element_section(&mut elements, section.clone())?;
        }
        Ok(elements)
    }

    fn code(&mut self) -> Result<CodeSection, Error<Infallible>> {
        let mut code = CodeSection::new();
        for body in &self.survey.bodies {
            self.parse_function_body(&mut code, body.clone())?;
        }
        Ok(code)
    }

    fn exports(&mut self) -> Result<(ExportSection, ExportNames), Error<Infallible>> {
        let mut exports = ExportSection::new();
        if let Some(section) = &self.survey.exports {
            self.parse_export_section(&mut exports, section.clone())?;
        }
        let mut export = |what: &str, kind: ExportKind, index: u32| {
            let name = format!("{RESERVED}{what}");
            exports.export(&name, kind, index);
            name
        };
        let memory = export("memory", ExportKind::Memory, 0);
        let globals = (self.survey.mutable_globals.iter())
            .map(|&index| export(&format!("global:{index}"), ExportKind::Global, index))
            .collect();
        let table_count = self.survey.tables.as_ref().map_or(0, |tables| tables.count());
        let tables =
            (0..table_count).map(|index| export(&format!("table:{index}"), ExportKind::Table, index)).collect();
        let mut function = |what: &str, index: u32| export(what, ExportKind::Func, self.shifted(index));
        let start = self.survey.start.map(|index| function("start", index));
        let functions =
            self.survey.referenced.iter().map(|&index| function(&format!("function:{index}"), index)).collect();
        Ok((exports, ExportNames { memory, start, globals, tables, functions }))
    }

    /// Names are for people: those that make no sense are left out, and so are those of data, which is not there any more.
    fn names(&mut self, section: NameSectionReader<'_>) -> NameSection {
        let mut names = NameSection::new();
        for name in section {
            let Ok(name) = name else { break };
            if !matches!(name, Name::Data(_) | Name::Unknown { .. }) {
                drop(self.parse_custom_name_subsection(&mut names, name));
            }
        }
        names
    }
}

fn memory() -> MemorySection {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: CAGE_PAGES,
        maximum: Some(CAGE_PAGES),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    memories
}
