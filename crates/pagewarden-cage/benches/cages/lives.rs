//! How long it takes to make a cage and to end it, against an instance of Wasmtime's.

use wasmtime::{Engine, Linker, Module, Store};

use crate::table::{Goal, Table};
use crate::{PAGES, cages, call, median, start, timed};

const TURNS: usize = 400;

pub(crate) fn measure(table: &mut Table) {
    let (cages, program) = cages();
    let engine = Engine::default();
    let module = Module::new(&engine, wat::parse_str(PAGES).expect("a module")).expect("a module");
    let mut linker: Linker<()> = Linker::new(&engine);
    let refused = |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64| -12;
    linker.func_wrap("pagewarden", "mmap", refused).expect("a function");
    let prepared = linker.instantiate_pre(&module).expect("a module");
    let (mut ours, mut theirs, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(timed(|| drop(start(&cages, &program))).1);
        let work = || {
            let mut store = Store::new(&engine, ());
            prepared.instantiate(&mut store).expect("an instance");
        };
        theirs.push(timed(work).1);
        used.push(timed(|| assert_eq!(call(&mut start(&cages, &program), "begin", &[]), 1)).1);
    }
    let (ours, theirs, used) = (median(ours) / 1e3, median(theirs) / 1e3, median(used) / 1e3);
    let against = format!("{theirs:.1} us for an instance of Wasmtime's ({:.2} x)", ours / theirs);
    table.add("a cage made and ended", (ours, "us"), against, Goal::AtMost(100.0));
    table.add("a cage made, run for a moment, and ended", (used, "us"), String::from("-"), Goal::None);
}
