//! What became of the instructions on ranges of memory: `memory.size`, `grow`, `copy`, `fill`, `init` and `data.drop`.
//!
//! Bytes go through the tables of the space, a piece at a time. Where one cannot be read or written the guest is stopped, at
//! that address. Differs from WebAssembly: pieces before it have been copied or filled then, as if by single stores.
//!
//! The size of the memory is its break, rounded up to 64 KiB, whatever is mapped above.

use pagewarden::VirtAddr;
use pagewarden::manager::Access;
use pagewarden::pager::CopyFault;
use wasmtime::{Caller, Error, Linker, Result, Trap};

use super::system_call;
use crate::memory::CAGE_BYTES;
use crate::program::LOWEST;
use crate::state::CageState;
use crate::trap::RefusedCopy;

/// Which module a prepared guest imports them from.
const MODULE: &str = "pagewarden:memory";
/// What `memory.size` counts in.
const WASM_PAGE: u64 = 64 << 10;
/// How much is copied at once.
const PIECE: usize = 16 << 10;
/// What is copied or filled without a large buffer.
const SMALL: usize = 256;

type Guest<'a> = Caller<'a, CageState>;

pub(super) fn link(linker: &mut Linker<CageState>) -> Result<()> {
    linker.func_wrap(MODULE, "size", |guest: Guest<'_>| size(guest.data()))?;
    linker.func_wrap(MODULE, "grow", |mut guest: Guest<'_>, pages: u32| grow(guest.data_mut(), pages))?;
    linker.func_wrap(MODULE, "copy", |guest: Guest<'_>, to: u32, from: u32, len: u32| {
        copy(guest.data(), to, from, len)
    })?;
    linker.func_wrap(MODULE, "fill", |guest: Guest<'_>, to: u32, value: u32, len: u32| {
        fill(guest.data(), to, value.to_le_bytes()[0], len)
    })?;
    linker.func_wrap(MODULE, "init", |guest: Guest<'_>, to: u32, from: u32, len: u32, segment: u32| {
        init(guest.data(), segment, to, (from, len))
    })?;
    linker.func_wrap(MODULE, "drop", |mut guest: Guest<'_>, segment: u32| drop_segment(guest.data_mut(), segment))?;
    Ok(())
}

/// The break in pages of 64 KiB. Never all that there can be: guests take the size in bytes, in 32 bits, for the end of a heap.
fn size(state: &CageState) -> u32 {
    let end = state.space.space().with_manager(|manager| manager.program_break()).as_u64();
    // A memory without a page ends where nothing can be.
    let pages = if end <= LOWEST { 0 } else { end.div_ceil(WASM_PAGE) };
    u32::try_from(pages.min(CAGE_BYTES as u64 / WASM_PAGE - 1)).unwrap_or(u32::MAX)
}

/// The size before, or -1.
fn grow(state: &mut CageState, more: u32) -> u32 {
    const REFUSED: u32 = u32::MAX;
    let old = size(state);
    if more == 0 {
        return old;
    }
    let end = (u64::from(old) + u64::from(more)) * WASM_PAGE;
    let is_too_large = state.program.0.memory.maximum_bytes.is_some_and(|most| end > most) || end > CAGE_BYTES as u64;
    if is_too_large || system_call(state, libc::SYS_brk, [end, 0, 0, 0, 0, 0]).cast_unsigned() != end {
        return REFUSED;
    }
    old
}

/// A range must lie in 4 GiB, whatever is in it.
fn check(start: u32, len: u32) -> Result<()> {
    if u64::from(start) + u64::from(len) > CAGE_BYTES as u64 { Err(Trap::MemoryOutOfBounds.into()) } else { Ok(()) }
}

fn refused(access: Access) -> impl FnOnce(CopyFault) -> Error {
    move |copy| Error::new(RefusedCopy::new(&copy, access))
}

fn read(state: &CageState, from: u64, to: &mut [u8]) -> Result<()> {
    state.space.read(VirtAddr::new(from), to).map_err(refused(Access::Read))
}

fn write(state: &CageState, to: u64, from: &[u8]) -> Result<()> {
    state.space.write(VirtAddr::new(to), from).map_err(refused(Access::Write))
}

fn copy(state: &CageState, to: u32, from: u32, len: u32) -> Result<()> {
    check(to, len)?;
    check(from, len)?;
    if len as usize <= SMALL {
        copy_by(state, &mut [0; SMALL], (to, from), len)
    } else {
        copy_by(state, &mut [0; PIECE], (to, from), len)
    }
}

/// Where the target begins inside of the source, from the end on.
fn copy_by(state: &CageState, buffer: &mut [u8], (to, from): (u32, u32), len: u32) -> Result<()> {
    let (to, from, len) = (u64::from(to), u64::from(from), u64::from(len));
    let is_backward = to > from && to < from + len;
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(buffer.len() as u64);
        let at = if is_backward { len - done - piece } else { done };
        let Some(bytes) = usize::try_from(piece).ok().and_then(|piece| buffer.get_mut(..piece)) else { break };
        read(state, from + at, bytes)?;
        write(state, to + at, bytes)?;
        done += piece;
    }
    Ok(())
}

fn fill(state: &CageState, to: u32, value: u8, len: u32) -> Result<()> {
    check(to, len)?;
    if len as usize <= SMALL {
        fill_by(state, &[value; SMALL], to, len)
    } else {
        fill_by(state, &[value; PIECE], to, len)
    }
}

fn fill_by(state: &CageState, values: &[u8], to: u32, len: u32) -> Result<()> {
    let mut rest = len as usize;
    let mut at = u64::from(to);
    while rest > 0 {
        let piece = &values[..rest.min(values.len())];
        write(state, at, piece)?;
        at += piece.len() as u64;
        rest -= piece.len();
    }
    Ok(())
}

fn init(state: &CageState, segment: u32, to: u32, (from, len): (u32, u32)) -> Result<()> {
    check(to, len)?;
    let index = segment as usize;
    let is_dropped = state.dropped.get(index).copied().unwrap_or(false);
    let bytes = state.program.0.segments.get(index).and_then(Option::as_deref).filter(|_| !is_dropped).unwrap_or(&[]);
    let end = (from as usize).checked_add(len as usize);
    let bytes = end.and_then(|end| bytes.get(from as usize..end)).ok_or(Trap::MemoryOutOfBounds)?;
    write(state, to.into(), bytes)
}

fn drop_segment(state: &mut CageState, segment: u32) {
    let index = segment as usize;
    if index < state.program.0.segments.len() {
        if state.dropped.len() <= index {
            state.dropped.resize(index + 1, false);
        }
        state.dropped[index] = true;
    }
}
