//! Guests that compute: the same module in a cage and in an instance of Wasmtime's.

use pagewarden_cage::{Cages, Program, Setup};
use wasmtime::{Engine, Instance, Module, Store, TypedFunc};

use crate::table::{Goal, Table};
use crate::{COMPUTE, cages, call, timed};

/// New memory on both sides so often: where it lies in the host's memory decides how well caches serve it.
const ROUNDS: usize = 12;
/// Turns in a round.
const TURNS: usize = 5;
/// What is called with what.
const ROWS: [(&str, u32); 4] = [("fib", 27), ("sieve", 2_000_000), ("matrices", 250), ("chase", 300_000)];

/// The least that each row took, in a cage and in Wasmtime.
type Best = [[f64; 2]; ROWS.len()];

fn round(cages: &(Cages, Program), native: &(Engine, Module), best: &mut Best) {
    let mut cage = cages.0.start(&cages.1, Setup::default()).expect("a cage");
    let mut store = Store::new(&native.0, ());
    let instance = Instance::new(&mut store, &native.1, &[]).expect("an instance");
    for ((name, argument), best) in ROWS.into_iter().zip(best) {
        let function: TypedFunc<u32, u32> = instance.get_typed_func(&mut store, name).expect(name);
        let mut native = || function.call(&mut store, argument).expect(name);
        // Memory is there from now on, on both sides.
        assert_eq!(call(&mut cage, name, &[argument]), native(), "{name}");
        for turn in 0..TURNS {
            for side in [turn % 2, 1 - turn % 2] {
                let took =
                    if side == 0 { timed(|| call(&mut cage, name, &[argument])).1 } else { timed(&mut native).1 };
                best[side] = best[side].min(took);
            }
        }
    }
}

pub(crate) fn measure(table: &mut Table) {
    let (cages, _) = cages();
    let program = cages.load(COMPUTE.as_bytes(), "compute").expect("a program");
    let engine = Engine::default();
    let module = Module::new(&engine, wat::parse_str(COMPUTE).expect("a module")).expect("a module");
    let (cages, native) = ((cages, program), (engine, module));
    let mut best = [[f64::INFINITY; 2]; ROWS.len()];
    (0..ROUNDS).for_each(|_| round(&cages, &native, &mut best));
    for ((name, _), [caged, native]) in ROWS.into_iter().zip(best) {
        let against = format!("{:.2} ms in Wasmtime, {:.2} ms in a cage", native / 1e6, caged / 1e6);
        table.add(format!("{name}, against Wasmtime"), (caged / native, "x"), against, Goal::AtMost(1.02));
    }
}
