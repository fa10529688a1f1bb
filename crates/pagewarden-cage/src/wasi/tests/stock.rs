//! Wasmtime's own WASI, on a memory of its own.

use std::sync::LazyLock;

use wasmtime::{Engine, Instance, Linker, Memory, Module, Store, Val};
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use super::{Caller, relay, types, values};
use crate::setup::Setup;
use crate::wasi::context::context;

/// A program that calls what it is told to.
pub(super) struct Stock {
    store: Store<WasiP1Ctx>,
    instance: Instance,
    memory: Memory,
}

impl Stock {
    pub(super) fn new(setup: &Setup) -> Self {
        static MODULE: LazyLock<Module> =
            LazyLock::new(|| Module::new(&Engine::default(), wat::parse_str(relay()).unwrap()).unwrap());
        let mut linker = Linker::new(MODULE.engine());
        p1::add_to_linker_sync(&mut linker, |context: &mut WasiP1Ctx| context).unwrap();
        let mut store = Store::new(MODULE.engine(), context(setup).unwrap());
        let instance = linker.instantiate(&mut store, &MODULE).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        Self { store, instance, memory }
    }
}

impl Caller for Stock {
    type Ended = wasmtime::Error;

    fn call(&mut self, name: &str, words: &[u64]) -> wasmtime::Result<i32> {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let mut results = [Val::I32(-1)];
        function.call(&mut self.store, &values(types(name).params(), words), &mut results)?;
        Ok(results[0].unwrap_i32())
    }

    fn put(&mut self, address: u32, bytes: &[u8]) {
        self.memory.write(&mut self.store, address as usize, bytes).unwrap();
    }

    fn get(&mut self, address: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(&self.store, address as usize, &mut bytes).unwrap();
        bytes
    }
}
