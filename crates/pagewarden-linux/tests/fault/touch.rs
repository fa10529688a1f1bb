//! A load, a store or an instruction fetch at any address, and what becomes of it.
//!
//! Each access leaves in [`RECOVER`] where to go on. The handlers note what happened and go on there. A fetch is
//! done with the trap flag set: the jump traps once, the instruction behind it a second time if it was fetched.
//! All memory that may be run holds zeros, an addition to the byte that `rax` points to.
//!
//! One thread only.

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewarden::manager::Access;

/// Instruction and stack pointer to go on with; 0 if no access is under way.
static RECOVER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Signal, code and address of the last fault.
static FAULT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Traps since a fetch began.
static TRAPS: AtomicU64 = AtomicU64::new(0);
/// What the instruction that is fetched changes.
static SCRATCH: AtomicU64 = AtomicU64::new(0);

const TRAP_FLAG: i64 = 0x100;

/// Signal number, code and address.
pub(crate) type Fault = (i32, i32, u64);

/// Does `access` at `address`.
///
/// # Safety
/// No byte at `address` belongs to this program, what is there holds zeros, and [`catch_faults`] was called.
pub(crate) unsafe fn touch(address: u64, access: Access) -> Option<Fault> {
    FAULT[0].store(0, Ordering::Relaxed);
    match access {
        // SAFETY: as the caller says.
        Access::Read => unsafe { load(address) },
        // SAFETY: as the caller says.
        Access::Write => unsafe { store(address) },
        // SAFETY: as the caller says.
        Access::Execute => unsafe { fetch(address) },
    }
    RECOVER[0].store(0, Ordering::Relaxed);
    let [signal, code, address] = [0, 1, 2].map(|part: usize| FAULT[part].load(Ordering::Relaxed));
    let as_int = |word: u64| i32::try_from(word).expect("signals and codes are small");
    (signal != 0).then(|| (as_int(signal), as_int(code), address))
}

unsafe fn load(address: u64) {
    // SAFETY: a load of one byte; if it faults, the handler goes on at label 2.
    unsafe {
        asm!(
            "mov [{recover} + 8], rsp",
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "mov {next:l}, byte ptr [{address}]",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER[0].as_ptr(),
            address = in(reg) address,
        );
    }
}

unsafe fn store(address: u64) {
    // SAFETY: a store of a zero where there are zeros; if it faults, the handler goes on at label 2.
    unsafe {
        asm!(
            "mov [{recover} + 8], rsp",
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "mov byte ptr [{address}], 0",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER[0].as_ptr(),
            address = in(reg) address,
        );
    }
}

unsafe fn fetch(address: u64) {
    TRAPS.store(0, Ordering::Relaxed);
    // SAFETY: one instruction at most is run, which changes SCRATCH and flags; the handlers go on at label 2.
    unsafe {
        asm!(
            "mov [{recover} + 8], rsp",
            "lea {next}, [rip + 2f]",
            "mov [{recover}], {next}",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "jmp {address}",
            "2:",
            next = out(reg) _,
            recover = in(reg) RECOVER[0].as_ptr(),
            address = in(reg) address,
            inout("rax") SCRATCH.as_ptr() => _,
        );
    }
}

/// Makes faults outcomes of the access under way.
pub(crate) fn catch_faults() {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP] {
        // SAFETY: the action is whole and its handler has the signature that SA_SIGINFO asks for.
        let set = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        assert_eq!(set, 0);
    }
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let next = RECOVER[0].load(Ordering::Relaxed);
    if next == 0 {
        // Not one of ours: let the same fault end the process.
        // SAFETY: setting the default action is allowed in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    if signal == libc::SIGTRAP && TRAPS.fetch_add(1, Ordering::Relaxed) == 0 {
        return;
    }
    if signal != libc::SIGTRAP {
        // SAFETY: with SA_SIGINFO the kernel hands over a whole siginfo_t.
        let info = unsafe { &*info };
        // SAFETY: SIGSEGV and SIGBUS carry an address.
        let address = unsafe { info.si_addr() };
        let parts = [signal.cast_unsigned(), info.si_code.cast_unsigned()].map(u64::from);
        for (place, part) in FAULT.iter().zip([parts[0], parts[1], address as u64]) {
            place.store(part, Ordering::Relaxed);
        }
    }
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context, ours to change until we return.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    registers[libc::REG_RIP as usize] = next.cast_signed();
    registers[libc::REG_RSP as usize] = RECOVER[1].load(Ordering::Relaxed).cast_signed();
    registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
}
