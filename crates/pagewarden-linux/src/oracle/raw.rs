//! System calls without a library in between, and memory accesses that survive a fault.
//!
//! An access stores where to go on in [`RECOVER`] before it touches the address; the signal handler notes what
//! happened in [`FAULT`] and goes on there. One thread only. Addresses are in a register that is not the stack's: through
//! those, what is no address of the processor's is a SIGBUS.

use std::arch::asm;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::outcome::Outcome;

/// Where the access under way goes on after a fault; 0 if there is none.
static RECOVER: AtomicU64 = AtomicU64::new(0);
/// The hash of nothing, and what it is multiplied by for each byte (FNV-1a).
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x100_0000_01b3;
/// Signal, code and address of the last fault.
static FAULT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Calls the kernel and returns its answer, or the error number.
///
/// # Safety
/// The call does nothing to memory or to state of this process that the process itself relies on.
pub(super) unsafe fn syscall(number: libc::c_long, args: [u64; 6]) -> Outcome {
    let answer: i64;
    // SAFETY: the registers are those of the kernel's calling convention; the caller answers for the effects.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(-i128::from(answer)) {
        Ok(errno @ 1..=4095) => Outcome::Error(errno),
        _ => Outcome::Value(answer.cast_unsigned()),
    }
}

/// The byte at `addr`, or the fault that reading it makes.
///
/// # Safety
/// `addr` does not lie in memory that this process itself uses, and [`catch_faults`] was called.
pub(super) unsafe fn read_byte(addr: u64) -> Result<u8, Outcome> {
    let mut value = 0_u8;
    let mut failed = 1_u64;
    // SAFETY: a load of one byte; if it faults, the handler goes on at label 2 and `failed` stays 1. The address
    // is none of this process's own, says the caller.
    unsafe {
        asm!(
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "mov {value}, byte ptr [rsi]",
            "xor {failed:e}, {failed:e}",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER.as_ptr(),
            value = inout(reg_byte) value,
            in("rsi") addr,
            failed = inout(reg) failed,
        );
    }
    finish(failed).map(|()| value)
}

/// Stores `value` at `addr`, or tells the fault that doing so makes.
///
/// # Safety
/// As for [`read_byte`].
pub(super) unsafe fn write_byte(addr: u64, value: u8) -> Result<(), Outcome> {
    let mut failed = 1_u64;
    // SAFETY: a store of one byte; if it faults, the handler goes on at label 2 and `failed` stays 1. The address
    // is none of this process's own, says the caller.
    unsafe {
        asm!(
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "mov byte ptr [rsi], {value}",
            "xor {failed:e}, {failed:e}",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER.as_ptr(),
            value = in(reg_byte) value,
            in("rsi") addr,
            failed = inout(reg) failed,
        );
    }
    finish(failed)
}

/// A hash of `len` bytes from `addr` on, loaded one after the other, or the fault that the first bad one makes.
///
/// # Safety
/// As for [`read_byte`], for all of the bytes.
pub(super) unsafe fn read_run(addr: u64, len: u64) -> Result<u64, Outcome> {
    if len == 0 {
        return Ok(HASH_START);
    }
    let mut hash = HASH_START;
    let mut failed = 1_u64;
    // SAFETY: loads of one byte each; if one faults, the handler goes on at label 2 and `failed` stays 1. The
    // addresses are none of this process's own, says the caller.
    unsafe {
        asm!(
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "3:",
            "movzx {next:e}, byte ptr [rsi]",
            "xor {hash}, {next}",
            "imul {hash}, {factor}",
            "inc rsi",
            "dec {left}",
            "jnz 3b",
            "xor {failed:e}, {failed:e}",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER.as_ptr(),
            factor = in(reg) HASH_FACTOR,
            hash = inout(reg) hash,
            inout("rsi") addr => _,
            left = inout(reg) len => _,
            failed = inout(reg) failed,
        );
    }
    finish(failed).map(|()| hash)
}

/// Stores `len` bytes from `addr` on one after the other, or tells the fault that the first bad one makes.
///
/// # Safety
/// As for [`read_byte`], for all of the bytes.
pub(super) unsafe fn write_run(addr: u64, len: u64, value: u8) -> Result<(), Outcome> {
    if len == 0 {
        return Ok(());
    }
    let mut failed = 1_u64;
    // SAFETY: as in `read_run`, with stores.
    unsafe {
        asm!(
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "3:",
            "mov byte ptr [rsi], {value}",
            "inc rsi",
            "dec {left}",
            "jnz 3b",
            "xor {failed:e}, {failed:e}",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER.as_ptr(),
            value = in(reg_byte) value,
            inout("rsi") addr => _,
            left = inout(reg) len => _,
            failed = inout(reg) failed,
        );
    }
    finish(failed)
}

/// The hash that [`read_run`] makes, of bytes that this process has.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(HASH_START, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(HASH_FACTOR))
}

/// Calls the function at `addr`, or tells the fault that doing so makes.
///
/// # Safety
/// If something can be executed at `addr`, it is a return instruction; and as for [`read_byte`].
pub(super) unsafe fn execute(addr: u64) -> Result<(), Outcome> {
    let mut failed = 1_u64;
    // SAFETY: what is called returns at once, says the caller; if it cannot be fetched, the handler goes on at label
    // 2. The stack pointer is put back in both cases, and what lies below it is left alone.
    unsafe {
        asm!(
            "mov {saved}, rsp",
            "sub rsp, 256",
            "and rsp, -16",
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "call {addr}",
            "xor {failed:e}, {failed:e}",
            "2:",
            "mov rsp, {saved}",
            saved = out(reg) _,
            next = out(reg) _,
            recover = in(reg) RECOVER.as_ptr(),
            addr = in(reg) addr,
            failed = inout(reg) failed,
        );
    }
    finish(failed)
}

fn finish(failed: u64) -> Result<(), Outcome> {
    RECOVER.store(0, Ordering::Relaxed);
    if failed == 0 {
        return Ok(());
    }
    let [signal, code, addr] = [0, 1, 2].map(|part: usize| FAULT[part].load(Ordering::Relaxed));
    Err(Outcome::Fault { signal, code, addr })
}

/// Makes SIGSEGV and SIGBUS outcomes of the access under way.
///
/// # Errors
/// What sigaction(2) says.
pub(super) fn catch_faults() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the action is whole and its handler has the signature that SA_SIGINFO asks for.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let next = RECOVER.swap(0, Ordering::Relaxed);
    if next == 0 {
        // Not one of ours: let the same fault end the process.
        // SAFETY: setting the default action is allowed in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: with SA_SIGINFO the kernel hands over a whole siginfo_t.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS carry an address.
    let addr = unsafe { info.si_addr() };
    let parts = [signal.cast_unsigned(), info.si_code.cast_unsigned()].map(u64::from);
    for (place, part) in FAULT.iter().zip([parts[0], parts[1], addr as u64]) {
        place.store(part, Ordering::Relaxed);
    }
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context, ours to change until we return.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = next.cast_signed();
}
