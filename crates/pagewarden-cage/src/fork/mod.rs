//! Fork: a process with a copy of another's memory, globals and tables.
//!
//! Owned here: what of an instance is carried over besides memory, which is the space's. Two ways lead to a place in the
//! program from there: [`clone`] begins at a function, [`asyncify`] returns twice.
//!
//! References to functions mean something in one store only. They are carried over by the name under which the prepared
//! module exports each function that a reference can be to.
//!
//! Differs from Linux: element segments that the parent has dropped are there again in the child, and descriptors of WASI
//! are not carried over.

pub(crate) mod asyncify;
pub(crate) mod clone;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use wasmtime::{AsContextMut, Func, Ref, StoreContextMut, Table, Val};

use crate::cage::{Cage, Entry};
use crate::engine::HOST_STACK_BYTES;
use crate::error::CageError;
use crate::family::{Permit, Process};
use crate::memory;
use crate::state::CageState;

/// Where a fork stands that returns twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// There is none.
    Running,
    /// The guest's functions return one after the other, and note in the buffer where they were.
    Unwinding {
        /// Where the buffer is.
        buffer: u32,
    },
    /// They are called again and go on where they were, as the buffer says.
    Rewinding {
        /// Where the buffer is.
        buffer: u32,
        /// What fork returns in the end.
        answer: i32,
    },
}

/// A process that is what the one of `parent` is, but for its place in the program. `enter` makes it one of the family.
pub(crate) fn duplicate(
    mut parent: impl AsContextMut<Data = CageState>,
    enter: impl FnOnce(&Process, Permit) -> Process,
) -> Result<Cage, CageError> {
    let mut parent = parent.as_context_mut();
    let state = parent.data();
    let census = &state.shared.census;
    let permit = census.admit().ok_or(CageError::TooManyProcesses(census.most()))?;
    let account = state.shared.new_account();
    let space = state.space.fork(memory::reserve()?, &account);
    let space = space.map_err(CageError::refused("no memory for a child"))?;
    let process = Arc::new(enter(&state.process, permit));
    let mut child = CageState::new(&state.shared, &state.program, &state.setup, (space, account), &process);
    child.dropped.clone_from(&state.dropped);
    let made = Cage::new(child).and_then(|mut child| {
        let carried = carry_over(&mut parent, child.store.as_context_mut());
        carried.map_err(CageError::wasmtime("cannot carry over globals and tables"))?;
        Ok(child)
    });
    made.inspect_err(|_| process.forget())
}

/// Lets a child begin on a thread of its own; its number.
pub(crate) fn set_going(child: Cage, entry: Entry) -> Result<i32, CageError> {
    let process = Arc::clone(&child.store.data().process);
    let pid = process.pid();
    let stack_bytes = child.store.data().shared.stack_bytes + 2 * HOST_STACK_BYTES;
    let thread = thread::Builder::new().name(format!("cage {pid}")).stack_size(stack_bytes);
    let spawned = thread.spawn(move || {
        // Not kept by the thread: its end is made known by whoever lives.
        child.live(&entry);
    });
    match spawned {
        Ok(_) => Ok(pid),
        Err(error) => {
            process.forget();
            Err(CageError::Thread(error))
        }
    }
}

/// The function with number `id` of the program, in this store.
pub(crate) fn function(mut store: impl AsContextMut<Data = CageState>, id: usize) -> Option<Func> {
    let mut store = store.as_context_mut();
    let instance = store.data().instance?;
    let program = store.data().program.clone();
    instance.get_module_export(&mut store, program.0.exports.functions.get(id)?)?.into_func()
}

/// The program's numbers of functions, by what a reference in one store is.
pub(crate) struct Numbers(HashMap<usize, usize>);

impl Numbers {
    /// Those of the store. What a reference is stays the same for as long as the store lives, so they are found once.
    fn of(store: &mut StoreContextMut<'_, CageState>) -> Arc<Self> {
        if let Some(numbers) = &store.data().numbers {
            return Arc::clone(numbers);
        }
        let count = store.data().program.0.exports.functions.len();
        let number = |id| Some((function(&mut *store, id)?.to_raw(&mut *store).addr(), id));
        let numbers = Arc::new(Self((0..count).filter_map(number).collect()));
        store.data_mut().numbers = Some(Arc::clone(&numbers));
        numbers
    }

    /// The same function in the child's store; none for a reference to nothing.
    fn translate(
        &self,
        parent: &mut StoreContextMut<'_, CageState>,
        child: &mut StoreContextMut<'_, CageState>,
        reference: Option<Func>,
    ) -> wasmtime::Result<Option<Func>> {
        let Some(reference) = reference else { return Ok(None) };
        let id = self.0.get(&reference.to_raw(parent).addr());
        let translated = id.and_then(|id| function(child, *id));
        translated.map(Some).ok_or_else(|| wasmtime::Error::msg("a reference to a function that nobody knows"))
    }
}

/// Gives the child the parent's globals and tables.
fn carry_over(
    parent: &mut StoreContextMut<'_, CageState>,
    mut child: StoreContextMut<'_, CageState>,
) -> wasmtime::Result<()> {
    let program = parent.data().program.clone();
    let exports = &program.0.exports;
    let (Some(from), Some(to)) = (parent.data().instance, child.data().instance) else {
        return Err(wasmtime::Error::msg("there is no instance"));
    };
    for export in &exports.globals {
        let old = from.get_module_export(&mut *parent, export).and_then(wasmtime::Extern::into_global);
        let new = to.get_module_export(&mut child, export).and_then(wasmtime::Extern::into_global);
        let (Some(old), Some(new)) = (old, new) else { continue };
        let mut value = old.get(&mut *parent);
        if let Val::FuncRef(reference) = value {
            let numbers = Numbers::of(parent);
            value = Val::FuncRef(numbers.translate(parent, &mut child, reference)?);
        }
        new.set(&mut child, value)?;
    }
    if !exports.tables_change {
        return Ok(());
    }
    let numbers = Numbers::of(parent);
    for export in &exports.tables {
        let old = from.get_module_export(&mut *parent, export).and_then(wasmtime::Extern::into_table);
        let new = to.get_module_export(&mut child, export).and_then(wasmtime::Extern::into_table);
        let (Some(old), Some(new)) = (old, new) else { continue };
        carry_over_table((parent, &old), (&mut child, &new), &numbers)?;
    }
    Ok(())
}

fn carry_over_table(
    (parent, old): (&mut StoreContextMut<'_, CageState>, &Table),
    (child, new): (&mut StoreContextMut<'_, CageState>, &Table),
    numbers: &Numbers,
) -> wasmtime::Result<()> {
    let size = old.size(&*parent);
    let more = size.saturating_sub(new.size(&*child));
    if more > 0 {
        new.grow(&mut *child, more, Ref::Func(None))?;
    }
    for index in 0..size {
        let Some(Ref::Func(reference)) = old.get(&mut *parent, index) else { continue };
        let reference = numbers.translate(parent, child, reference)?;
        new.set(&mut *child, index, Ref::Func(reference))?;
    }
    Ok(())
}
