//! The memory that Wasmtime's WASI works on in the place of a cage's, and the functions that reach it there.
//!
//! Wasmtime's functions look for the memory among the exports of the instance that calls them. So there is an instance
//! a cage that has a memory of the host's, and for each function one that calls it with the same arguments. Both are made
//! when a cage first needs them.
//!
//! Stays outside: what is copied into this memory and out of it ([`super::transfer`]).

use std::sync::Arc;

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    MemoryType as RawMemoryType, TypeSection, ValType as RawValType,
};
use wasmtime::{
    AsContextMut, Caller, Engine, Extern, Func, FuncType, Instance, Linker, Memory, MemoryType, Module, Result, Store,
    Val, ValType, bail, format_err,
};
use wasmtime_wasi::{WasiCtx, p1};

use super::Errno;
use crate::state::CageState;

/// What the module imports its memory from.
const OWN_MODULE: &str = "pagewarden:wasi";
const MEMORY: &str = "memory";
const PAGE: u64 = 65536;
/// Most memory of a cage for WASI, in pages.
const PAGES_MAX: u32 = 1024;

/// What the instances of all cages are made from.
pub(super) struct Trampolines {
    module: Module,
    linker: Linker<CageState>,
    functions: Vec<(String, FuncType)>,
}

impl Trampolines {
    pub(super) fn new(engine: &Engine) -> Result<Self> {
        let functions = functions(engine)?;
        let module = Module::new(engine, encode(&functions)?)?;
        let mut linker = Linker::new(engine);
        p1::add_to_linker_sync(&mut linker, |state: &mut CageState| state.wasi.get_or_insert_default().context())?;
        Ok(Self { module, linker, functions })
    }

    /// WASI's functions, by name and type. Their order is that of the numbers that [`Bounce::call`] takes.
    pub(super) fn functions(&self) -> &[(String, FuncType)] {
        &self.functions
    }

    /// The number of the function called `name`.
    pub(super) fn number(&self, name: &str) -> Result<usize> {
        self.functions
            .iter()
            .position(|(function, _)| function == name)
            .ok_or_else(|| format_err!("WASI has no function {name}"))
    }
}

/// Wasmtime's own list.
fn functions(engine: &Engine) -> Result<Vec<(String, FuncType)>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_sync(&mut linker, |context: &mut p1::WasiP1Ctx| context)?;
    let mut store = Store::new(engine, WasiCtx::builder().build_p1());
    let items: Vec<_> = linker.iter(&mut store).map(|(_, name, item)| (name.to_owned(), item)).collect();
    let mut functions = Vec::new();
    for (name, item) in items {
        if let Some(function) = item.into_func() {
            functions.push((name, function.ty(&store)));
        }
    }
    functions.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(functions)
}

/// A module that imports the memory and each function, and exports the memory and, in the same order, a function that
/// calls each.
fn encode(functions: &[(String, FuncType)]) -> Result<Vec<u8>> {
    let (mut types, mut imports, mut own) = (TypeSection::new(), ImportSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let memory = RawMemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
    imports.import(OWN_MODULE, MEMORY, memory);
    exports.export(MEMORY, ExportKind::Memory, 0);
    let imported = u32::try_from(functions.len())?;
    for (number, (name, ty)) in (0..imported).zip(functions) {
        types.ty().function(raw_types(ty.params())?, raw_types(ty.results())?);
        imports.import(super::MODULE, name, EntityType::Function(number));
        own.function(number);
        exports.export(name, ExportKind::Func, imported + number);
        let mut body = Function::new([]);
        for parameter in 0..u32::try_from(ty.params().len())? {
            body.instructions().local_get(parameter);
        }
        body.instructions().call(number).end();
        code.function(&body);
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&imports).section(&own).section(&exports).section(&code);
    Ok(module.finish())
}

fn raw_types(types: impl Iterator<Item = ValType>) -> Result<Vec<RawValType>> {
    let raw = |ty| match ty {
        ValType::I32 => Ok(RawValType::I32),
        ValType::I64 => Ok(RawValType::I64),
        other => bail!("WASI has a parameter of type {other}"),
    };
    types.map(raw).collect()
}

/// A cage's memory for WASI, with the functions that work on it.
#[derive(Clone)]
pub(super) struct Bounce {
    memory: Memory,
    functions: Arc<[Func]>,
}

impl Bounce {
    pub(super) fn new(caller: &mut Caller<'_, CageState>, trampolines: &Trampolines) -> Result<Self> {
        let memory = Memory::new(&mut *caller, MemoryType::new(0, Some(PAGES_MAX)))?;
        let mut imports = vec![Extern::from(memory)];
        for (name, _) in trampolines.functions() {
            imports.push(trampolines.linker.get(&mut *caller, super::MODULE, name)?);
        }
        let instance = Instance::new(&mut *caller, &trampolines.module, &imports)?;
        let functions = trampolines.functions().iter().map(|(name, _)| {
            instance.get_func(&mut *caller, name).ok_or_else(|| format_err!("the function {name} is not exported"))
        });
        Ok(Self { memory, functions: functions.collect::<Result<_>>()? })
    }

    /// Makes sure that there are `bytes` bytes.
    pub(super) fn reserve(&self, caller: &mut Caller<'_, CageState>, bytes: u64) -> Result<(), Errno> {
        let missing = bytes.div_ceil(PAGE).saturating_sub(self.memory.size(&*caller));
        if missing > 0 {
            self.memory.grow(&mut *caller, missing).map_err(|_| Errno::NOMEM)?;
        }
        Ok(())
    }

    /// `len` bytes from `start` on, which were reserved, and the cage's state.
    pub(super) fn slice<'a>(
        &self,
        caller: &'a mut Caller<'_, CageState>,
        start: u32,
        len: u32,
    ) -> Result<(&'a mut [u8], &'a mut CageState)> {
        let (bytes, state) = self.memory.data_and_store_mut(caller.as_context_mut());
        let start = usize::try_from(start)?;
        let end = start.saturating_add(usize::try_from(len)?);
        let part = bytes.get_mut(start..end).ok_or_else(|| format_err!("no room was made for a call of WASI"))?;
        Ok((part, state))
    }

    /// Calls the function of this number; what it answers.
    pub(super) fn call(&self, caller: &mut Caller<'_, CageState>, number: usize, words: &[Val]) -> Result<i32> {
        let Some(function) = self.functions.get(number) else { bail!("WASI has no function number {number}") };
        let mut results = [Val::I32(0)];
        function.call(&mut *caller, words, &mut results)?;
        match results {
            [Val::I32(errno)] => Ok(errno),
            [other] => bail!("WASI answered with {other:?}"),
        }
    }
}
