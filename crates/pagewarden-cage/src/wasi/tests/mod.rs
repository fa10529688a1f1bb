//! WASI in a cage, held against Wasmtime's own on a memory without holes.

mod edges;
mod session;
mod stock;

use std::fmt::Write as _;
use std::sync::LazyLock;

use pagewarden::Prot;
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use wasmtime::{Engine, FuncType, Val, ValType};

use super::MODULE;
use super::bounce::Trampolines;
use super::table::kind;
use crate::setup::{Directory, Kept, Setup, Stdio};
use crate::{Cage, CageOptions, Cages, Ended, Program};

/// Where guests have memory.
const START: u32 = 0x1_0000;
/// Where it ends.
const END: u32 = 0x4_0000;
/// Where nothing is, neither here nor in the memory that Wasmtime's functions work on.
const HOLE: u32 = 0xdead_0000;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NAMETOOLONG: i32 = 37;

/// What all guests start with: arguments, environment, a directory, and some input.
fn setup(dir: &tempfile::TempDir) -> Setup {
    let dirs = vec![Directory { host: dir.path().to_owned(), guest: "/work".to_owned() }];
    let pairs = [("HOME", "/work"), ("EMPTY", ""), ("LANG", "größe")];
    let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let stdio = Stdio::Kept { input: b"one line\nmore\n".to_vec(), output: Kept::new(65536), errors: Kept::new(65536) };
    let args = ["program", "", "two words", "日本"].map(str::to_owned).to_vec();
    Setup { args, env, dirs, stdio, ..Setup::default() }
}

/// WASI's functions and their types.
fn functions() -> &'static [(String, FuncType)] {
    static FUNCTIONS: LazyLock<Trampolines> = LazyLock::new(|| Trampolines::new(&Engine::default()).unwrap());
    FUNCTIONS.functions()
}

fn types(name: &str) -> &'static FuncType {
    functions().iter().find(|(function, _)| function == name).map(|(_, ty)| ty).unwrap()
}

/// A module that hands each of WASI's functions to the host as it is.
fn relay() -> String {
    let names = |types: &mut dyn Iterator<Item = ValType>| types.map(|ty| format!(" {ty}")).collect::<String>();
    let (mut imports, mut relays) = (String::new(), String::new());
    for (name, ty) in functions() {
        let (params, results) = (names(&mut ty.params()), names(&mut ty.results()));
        let signature = format!("(param{params}) (result{results})");
        writeln!(imports, "(import \"{MODULE}\" \"{name}\" (func ${name} {signature}))").unwrap();
        let words: String = (0..ty.params().len()).map(|index| format!("local.get {index} ")).collect();
        writeln!(relays, "(func (export \"{name}\") {signature} {words} call ${name})").unwrap();
    }
    let pages = END / 65536;
    format!("(module {imports} (memory (export \"memory\") {pages} {pages}) {relays})")
}

/// The values of `words` as the types of a function's parameters have them.
fn values(types: impl Iterator<Item = ValType>, words: &[u64]) -> Vec<Val> {
    let value = |(ty, word): (ValType, &u64)| match ty {
        ValType::I32 => Val::I32(u32::try_from(*word).unwrap().cast_signed()),
        _ => Val::I64(word.cast_signed()),
    };
    types.zip(words).map(value).collect()
}

/// Somebody who calls WASI.
trait Caller {
    type Ended;

    /// The error number, or how the program ended.
    fn call(&mut self, name: &str, words: &[u64]) -> Result<i32, Self::Ended>;
    fn put(&mut self, address: u32, bytes: &[u8]);
    fn get(&mut self, address: u32, len: usize) -> Vec<u8>;

    fn put_words(&mut self, address: u32, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(address, &bytes);
    }

    fn word(&mut self, address: u32) -> u32 {
        u32::from_le_bytes(self.get(address, 4).try_into().unwrap())
    }
}

/// A program in a cage that calls what it is told to.
struct Guest(Cage);

impl Guest {
    fn new(setup: Setup) -> Self {
        static RELAY: LazyLock<(Cages, Program)> = LazyLock::new(|| {
            let cages = Cages::new(&CageOptions::default()).unwrap();
            let program = cages.load(relay().as_bytes(), "relay").unwrap();
            (cages, program)
        });
        let (cages, program) = &*RELAY;
        Self(cages.start(program, setup).unwrap())
    }

    /// Maps new memory.
    fn map(&self, address: u32, len: u32, prot: Prot) {
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
        let (addr, len, prot) = (address.into(), len.into(), prot.bits().into());
        let request = MmapRequest { addr, len, prot, flags, source: MapSource::Anonymous, offset: 0 };
        self.0.space().call(&Request::Mmap(request)).unwrap();
    }

    fn unmap(&self, address: u32, len: u32) {
        self.0.space().call(&Request::Munmap { addr: address.into(), len: len.into() }).unwrap();
    }
}

impl Caller for Guest {
    type Ended = Ended;

    fn call(&mut self, name: &str, words: &[u64]) -> Result<i32, Ended> {
        let results = self.0.call(name, &values(types(name).params(), words))?;
        Ok(results[0].unwrap_i32())
    }

    fn put(&mut self, address: u32, bytes: &[u8]) {
        self.0.write(address, bytes).unwrap();
    }

    fn get(&mut self, address: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read(address, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn every_function_of_wasi_is_known_with_all_its_parameters() {
    assert_eq!(functions().len(), 46);
    for (name, ty) in functions() {
        let kind = kind(name).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(kind.parameters(), ty.params().len(), "{name}");
    }
    assert_eq!(kind("fd_levitate"), None);
}
