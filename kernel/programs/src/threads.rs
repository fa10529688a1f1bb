//! Threads of one process.

use core::arch::global_asm;

use crate::Pages;
use crate::linux::{self, Errno, Result, number, prot};

global_asm!(
    r#"
    .pushsection .text.threads, "ax", @progbits
    // (rdi flags, rsi top of the stack, rdx what it runs, rcx an argument for that) -> rax what clone(2) answers
    .globl runtime_clone
    .type runtime_clone, @function
    runtime_clone:
        mov r8, rcx
        mov r9, rdx
        xor edx, edx
        xor r10d, r10d
        mov eax, {clone}
        // The stack is the new thread's alone: what it needs waits there.
        sub rsi, 16
        mov [rsi], r9
        mov [rsi + 8], r8
        xor r8d, r8d
        syscall
        test rax, rax
        jz 2f
        ret
    2:
        xor ebp, ebp
        pop rax
        pop rdi
        call rax
        mov eax, {exit}
        xor edi, edi
        syscall
        ud2
    .popsection
    "#,
    clone = const number::CLONE,
    exit = const number::EXIT,
);

unsafe extern "C" {
    fn runtime_clone(flags: u64, stack: u64, body: extern "C" fn(u64), argument: u64) -> i64;
}

/// Memory, descriptors and the rest are shared: `CLONE_VM`, `FS`, `FILES`, `SIGHAND`, `THREAD`, `SYSVSEM`.
const SHARE_ALL: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
/// Pages of a stack.
const STACK: u64 = 8;

/// Starts a thread that runs `body`, on a stack that is there until the process ends.
///
/// # Errors
/// Those of mmap(2) and clone(2).
pub fn spawn(body: extern "C" fn(u64), argument: u64) -> Result<u64> {
    let stack = Pages::map(STACK, prot::READ_WRITE)?;
    // SAFETY: the stack is for this thread alone and large enough, and `body` is safe to be run by any thread.
    let answer = unsafe { runtime_clone(SHARE_ALL, stack.page(STACK), body, argument) };
    match Errno::of_answer(answer) {
        Some(errno) => Err(errno),
        None => Ok(answer.cast_unsigned()),
    }
}

/// Lets others run until `condition` holds; whether it ever did.
pub fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    const ROUNDS: u32 = 100_000;
    for _ in 0..ROUNDS {
        if condition() {
            return true;
        }
        linux::yield_now();
    }
    false
}
