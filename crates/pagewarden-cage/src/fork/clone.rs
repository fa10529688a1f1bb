//! clone(): a child that begins at a function. Nothing of the program needs to be built for it.

use pagewarden::Errno;
use wasmtime::{AsContextMut, Caller, Extern, Func, Ref, ValType};

use super::{Numbers, Phase, duplicate, set_going};
use crate::cage::Entry;
use crate::calls::errno_word;
use crate::family::Process;
use crate::state::CageState;

/// The guest calls clone(): a child calls the function at `index` of the first table with `argument`, and exits with what
/// it returns. The child's number, or an error number: `EINVAL` if there is no such function, or it takes something else.
pub(crate) fn clone(caller: &mut Caller<'_, CageState>, index: u32, argument: i32) -> i32 {
    if caller.data().phase != Phase::Running {
        return errno_word(Errno::Again);
    }
    let Some(id) = number_at(caller, index) else { return errno_word(Errno::Inval) };
    let child = duplicate(&mut *caller, Process::child);
    let pid = child.and_then(|child| set_going(child, Entry::Function { id, argument }));
    pid.unwrap_or_else(|error| errno_word(error.errno()))
}

/// The program's number of the function in the table.
fn number_at(caller: &mut Caller<'_, CageState>, index: u32) -> Option<usize> {
    let program = caller.data().program.clone();
    let instance = caller.data().instance?;
    let table =
        instance.get_module_export(&mut *caller, program.0.exports.tables.first()?).and_then(Extern::into_table)?;
    let Some(Ref::Func(Some(function))) = table.get(&mut *caller, index.into()) else { return None };
    if !takes_one_number(&function, caller) {
        return None;
    }
    let raw = function.to_raw(&mut *caller).addr();
    Numbers::of(&mut caller.as_context_mut()).0.get(&raw).copied()
}

fn takes_one_number(function: &Func, caller: &Caller<'_, CageState>) -> bool {
    let ty = function.ty(caller);
    let mut params = ty.params();
    matches!((params.next(), params.next()), (Some(ValType::I32), None)) && ty.results().len() <= 1
}
