//! What compiled code takes for granted and no library brings here.
//!
//! In assembly: written in Rust, a copy may be compiled to a call of itself.

use core::arch::global_asm;

global_asm!(
    r#"
    .macro routine name
        .balign 16
        .globl \name
        .type \name, @function
    \name:
    .endm

    .pushsection .text.routines, "ax", @progbits

    // (rdi to, rsi from, rdx bytes) -> rax to
    routine memcpy
        mov rax, rdi
        mov rcx, rdx
        rep movsb
        ret

    // (rdi to, rsi from, rdx bytes) -> rax to
    routine memmove
        mov rax, rdi
        mov rcx, rdx
        mov r8, rdi
        sub r8, rsi
        cmp r8, rdx
        jb 2f
        rep movsb
        ret
    2:
        lea rdi, [rdi + rdx - 1]
        lea rsi, [rsi + rdx - 1]
        std
        rep movsb
        cld
        ret

    // (rdi to, sil byte, rdx bytes) -> rax to
    routine memset
        mov r8, rdi
        mov eax, esi
        mov rcx, rdx
        rep stosb
        mov rax, r8
        ret

    // (rdi one, rsi other, rdx bytes) -> eax their difference
    routine memcmp
    routine bcmp
        xor eax, eax
        mov rcx, rdx
        cmp rcx, rcx
        repe cmpsb
        je 3f
        movzx eax, byte ptr [rdi - 1]
        movzx ecx, byte ptr [rsi - 1]
        sub eax, ecx
    3:
        ret

    // (rdi text that ends with a zero) -> rax bytes before that
    routine strlen
        xor eax, eax
    4:
        cmp byte ptr [rdi + rax], 0
        je 5f
        inc rax
        jmp 4b
    5:
        ret

    // Named by the libraries, called by nobody: a panic ends the program.
    routine rust_eh_personality
    routine _Unwind_Resume
        ud2

    .popsection
    .purgem routine
    "#
);
