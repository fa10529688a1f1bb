//! mmap(2) and its like by name, with the arguments of a 32-bit program.

use pagewarden::Errno;
use wasmtime::{Caller, Linker};

use super::{MODULE, errno_word, low_word, system_call};
use crate::state::CageState;

/// The caller, as a host call gets it.
type Guest<'a> = Caller<'a, CageState>;

pub(super) fn link(linker: &mut Linker<CageState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "mmap",
        |mut guest: Guest<'_>, addr: u32, len: u32, prot: u32, flags: u32, fd: u32, offset: u64| {
            call(&mut guest, libc::SYS_mmap, [addr, len, prot, flags, fd], offset)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "mremap",
        |mut guest: Guest<'_>, addr: u32, old_len: u32, new_len: u32, flags: u32, new_addr: u32| {
            call(&mut guest, libc::SYS_mremap, [addr, old_len, new_len, flags, new_addr], 0)
        },
    )?;
    linker.func_wrap(MODULE, "munmap", |mut guest: Guest<'_>, addr: u32, len: u32| {
        call(&mut guest, libc::SYS_munmap, [addr, len, 0, 0, 0], 0)
    })?;
    for (name, number) in [("mprotect", libc::SYS_mprotect), ("madvise", libc::SYS_madvise), ("msync", libc::SYS_msync)]
    {
        linker.func_wrap(MODULE, name, move |mut guest: Guest<'_>, addr: u32, len: u32, word: u32| {
            call(&mut guest, number, [addr, len, word, 0, 0], 0)
        })?;
    }
    linker.func_wrap(MODULE, "brk", |mut guest: Guest<'_>, addr: u32| {
        call(&mut guest, libc::SYS_brk, [addr, 0, 0, 0, 0], 0)
    })?;
    linker.func_wrap(MODULE, "sbrk", |mut guest: Guest<'_>, increment: i32| move_break(guest.data_mut(), increment))?;
    linker.func_wrap(
        MODULE,
        "syscall",
        |mut guest: Guest<'_>, number: i64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64| {
            system_call(guest.data_mut(), number, [a, b, c, d, e, f])
        },
    )?;
    Ok(())
}

fn call(guest: &mut Guest<'_>, number: libc::c_long, words: [u32; 5], last: u64) -> i32 {
    let [a, b, c, d, e] = words.map(u64::from);
    low_word(system_call(guest.data_mut(), number, [a, b, c, d, e, last]))
}

/// sbrk(3): the break as it was, or `ENOMEM`.
fn move_break(state: &mut CageState, increment: i32) -> i32 {
    let old = state.space.space().with_manager(|manager| manager.program_break()).as_u64();
    let wanted = old.checked_add_signed(increment.into());
    let Some(wanted) = wanted.filter(|wanted| *wanted != 0) else { return errno_word(Errno::NoMem) };
    let new = system_call(state, libc::SYS_brk, [wanted, 0, 0, 0, 0, 0]);
    if new.cast_unsigned() == wanted { low_word(old.cast_signed()) } else { errno_word(Errno::NoMem) }
}
