//! A stock engine whose host functions do on its own memory what prepared modules ask for.

use wasmtime::{Caller, Engine, Error, Instance, Linker, Memory, Module, Result, Store, Trap, Val};

use crate::module::calls::IMPORT_MODULE;
use crate::module::{Prepared, prepare};

const PAGE: usize = 65_536;

/// What the host functions know.
#[derive(Default)]
struct Host {
    /// What the module has told.
    told: Vec<i32>,
    memory: Option<Memory>,
    pages: u32,
    most_pages: u32,
    segments: Vec<Option<Vec<u8>>>,
}

/// What a module did: whatever can be seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// What each call gave, as text: a value may be no number.
    pub(super) results: Vec<String>,
    /// What it told `env.tell`.
    pub(super) told: Vec<i32>,
    /// All of its memory.
    pub(super) memory: Vec<u8>,
}

/// What a module does as it is, when its exports are called one after the other.
pub(super) fn original(engine: &Engine, wasm: &[u8], calls: &[&str]) -> Seen {
    let mut store = Store::new(engine, Host::default());
    let module = Module::new(engine, wasm).expect("it compiles");
    let instance = linker(engine).instantiate(&mut store, &module).expect("it can be instantiated");
    let results = calls.iter().map(|name| call(&mut store, &instance, name)).collect();
    let memory = instance.get_memory(&mut store, "memory").expect("it exports its memory");
    Seen { results, told: store.data().told.clone(), memory: memory.data(&store).to_vec() }
}

/// The same of what is prepared from it.
pub(super) fn prepared(engine: &Engine, wasm: &[u8], calls: &[&str]) -> Seen {
    let Prepared { wasm, memory: limits, active, segments, names } = prepare(wasm).expect("it can be prepared");
    let pages = |bytes: u64| u32::try_from(bytes / PAGE as u64).expect("it is a size in 4 GiB");
    let most_pages = limits.maximum_bytes.map_or(65_536, pages);
    let host = Host { pages: pages(limits.initial_bytes), most_pages, segments, ..Host::default() };
    let mut store = Store::new(engine, host);
    let module = Module::new(engine, &wasm).expect("it compiles");
    let instance = linker(engine).instantiate(&mut store, &module).expect("it can be instantiated");
    let memory = instance.get_memory(&mut store, &names.memory).expect("its memory is exported");
    store.data_mut().memory = Some(memory);
    for segment in active {
        memory.write(&mut store, segment.offset as usize, &segment.bytes).expect("it is in memory");
    }
    if let Some(start) = names.start {
        assert_eq!(call(&mut store, &instance, &start), "[]");
    }
    let results = calls.iter().map(|name| call(&mut store, &instance, name)).collect();
    let end = store.data().pages as usize * PAGE;
    Seen { results, told: store.data().told.clone(), memory: memory.data(&store)[..end].to_vec() }
}

fn call(store: &mut Store<Host>, instance: &Instance, name: &str) -> String {
    let function = instance.get_func(&mut *store, name).expect("it exports the function");
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    match function.call(store, &[], &mut results) {
        Ok(()) => format!("{results:?}"),
        Err(error) => error.downcast_ref::<Trap>().map_or_else(|| format!("{error:#}"), ToString::to_string),
    }
}

fn linker(engine: &Engine) -> Linker<Host> {
    let mut linker = Linker::new(engine);
    let told =
        linker.func_wrap("env", "tell", |mut guest: Caller<'_, Host>, word: i32| guest.data_mut().told.push(word));
    told.and_then(|linker| linker.func_wrap(IMPORT_MODULE, "size", |guest: Caller<'_, Host>| guest.data().pages))
        .and_then(|linker| {
            linker.func_wrap(IMPORT_MODULE, "grow", |mut guest: Caller<'_, Host>, pages: u32| {
                grow(guest.data_mut(), pages)
            })
        })
        .and_then(|linker| linker.func_wrap(IMPORT_MODULE, "copy", copy))
        .and_then(|linker| linker.func_wrap(IMPORT_MODULE, "fill", fill))
        .and_then(|linker| linker.func_wrap(IMPORT_MODULE, "init", init))
        .and_then(|linker| linker.func_wrap(IMPORT_MODULE, "drop", drop_segment))
        .expect("the names differ");
    linker
}

fn grow(host: &mut Host, pages: u32) -> u32 {
    let old = host.pages;
    match old.checked_add(pages).filter(|new| *new <= host.most_pages) {
        Some(new) => {
            host.pages = new;
            old
        }
        None => u32::MAX,
    }
}

/// The memory as far as it is the module's.
fn memory<'a>(guest: &'a mut Caller<'_, Host>) -> &'a mut [u8] {
    let end = guest.data().pages as usize * PAGE;
    let memory = guest.data().memory.expect("nothing runs before it is known");
    &mut memory.data_mut(guest)[..end]
}

fn outside() -> Error {
    Trap::MemoryOutOfBounds.into()
}

fn copy(mut guest: Caller<'_, Host>, to: u32, from: u32, bytes: u32) -> Result<()> {
    let memory = memory(&mut guest);
    let [to, from, bytes] = [to, from, bytes].map(|word| word as usize);
    if to + bytes > memory.len() || from + bytes > memory.len() {
        return Err(outside());
    }
    memory.copy_within(from..from + bytes, to);
    Ok(())
}

fn fill(mut guest: Caller<'_, Host>, to: u32, byte: u32, bytes: u32) -> Result<()> {
    let range = to as usize..to as usize + bytes as usize;
    memory(&mut guest).get_mut(range).ok_or_else(outside)?.fill(byte.to_le_bytes()[0]);
    Ok(())
}

fn init(mut guest: Caller<'_, Host>, to: u32, from: u32, bytes: u32, segment: u32) -> Result<()> {
    let segment = guest.data().segments[segment as usize].clone().unwrap_or_default();
    let source = segment.get(from as usize..from as usize + bytes as usize).ok_or_else(outside)?;
    let range = to as usize..to as usize + bytes as usize;
    memory(&mut guest).get_mut(range).ok_or_else(outside)?.copy_from_slice(source);
    Ok(())
}

fn drop_segment(mut guest: Caller<'_, Host>, segment: u32) {
    guest.data_mut().segments[segment as usize] = None;
}
