# Into user code and back, and traps in kernel code.
#
# No thread has a kernel stack. enter_user is a function: it returns when the thread traps, with all registers of the
# thread in its context. Traps in kernel code are handled on the stack of their vector and return to where they came from.
#
# Offsets of a context (trap.rs asserts them): 15 registers, then rip, flags, rsp, vector, error, address, extended state.

    .set CONTEXT_RIP, 120
    .set CONTEXT_FLAGS, 128
    .set CONTEXT_RSP, 136
    .set CONTEXT_VECTOR, 144
    .set CONTEXT_ERROR, 152
    .set CONTEXT_ADDRESS, 160
    .set CONTEXT_EXTENDED, 176
    # Offsets of a processor (processor.rs asserts them).
    .set PROCESSOR_SCRATCH, 0
    .set PROCESSOR_STACK, 8
    .set PROCESSOR_CONTEXT, 16
    .set PROCESSOR_USER_STACK, 24

    .set USER_CODE, 0x23
    .set USER_DATA, 0x1b
    .set VECTOR_SYSCALL, 0x100

    .section .text

    # What every way out of user code does with the registers that nothing else has touched. rax is the context's.
    .macro save_registers
    movq %rbx, 8(%rax)
    movq %rcx, 16(%rax)
    movq %rdx, 24(%rax)
    movq %rsi, 32(%rax)
    movq %rdi, 40(%rax)
    movq %rbp, 48(%rax)
    movq %r8, 56(%rax)
    movq %r9, 64(%rax)
    movq %r10, 72(%rax)
    movq %r11, 80(%rax)
    movq %r12, 88(%rax)
    movq %r13, 96(%rax)
    movq %r14, 104(%rax)
    movq %r15, 112(%rax)
    movq %gs:PROCESSOR_SCRATCH, %rbx
    movq %rbx, 0(%rax)
    fxsave64 CONTEXT_EXTENDED(%rax)
    .endm

    # (rdi context)
    .globl enter_user
enter_user:
    cli
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %gs:PROCESSOR_STACK
    movq %rdi, %gs:PROCESSOR_CONTEXT
    fxrstor64 CONTEXT_EXTENDED(%rdi)
    pushq $USER_DATA
    pushq CONTEXT_RSP(%rdi)
    pushq CONTEXT_FLAGS(%rdi)
    pushq $USER_CODE
    pushq CONTEXT_RIP(%rdi)
    movq 0(%rdi), %rax
    movq 8(%rdi), %rbx
    movq 16(%rdi), %rcx
    movq 24(%rdi), %rdx
    movq 32(%rdi), %rsi
    movq 48(%rdi), %rbp
    movq 56(%rdi), %r8
    movq 64(%rdi), %r9
    movq 72(%rdi), %r10
    movq 80(%rdi), %r11
    movq 88(%rdi), %r12
    movq 96(%rdi), %r13
    movq 104(%rdi), %r14
    movq 112(%rdi), %r15
    movq 40(%rdi), %rdi
    swapgs
    iretq

    # Back in enter_user's caller. A kernel that is interrupted here is one that has just begun to handle the trap.
leave_user:
    movq %gs:PROCESSOR_STACK, %rsp
    ldmxcsr masked(%rip)
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    retq

    .globl syscall_entry
syscall_entry:
    swapgs
    movq %rax, %gs:PROCESSOR_SCRATCH
    movq %rsp, %gs:PROCESSOR_USER_STACK
    movq %gs:PROCESSOR_CONTEXT, %rax
    save_registers
    movq %rcx, CONTEXT_RIP(%rax)
    movq %r11, CONTEXT_FLAGS(%rax)
    movq %gs:PROCESSOR_USER_STACK, %rbx
    movq %rbx, CONTEXT_RSP(%rax)
    movq $VECTOR_SYSCALL, CONTEXT_VECTOR(%rax)
    jmp leave_user

    # The stack holds vector, error, rip, cs, flags, rsp, ss.
trap:
    cld
    testb $3, 24(%rsp)
    jz trap_in_kernel
    swapgs
    clac
    movq %rax, %gs:PROCESSOR_SCRATCH
    movq %gs:PROCESSOR_CONTEXT, %rax
    save_registers
    popq CONTEXT_VECTOR(%rax)
    popq CONTEXT_ERROR(%rax)
    popq CONTEXT_RIP(%rax)
    addq $8, %rsp
    popq CONTEXT_FLAGS(%rax)
    popq CONTEXT_RSP(%rax)
    movq %cr2, %rbx
    movq %rbx, CONTEXT_ADDRESS(%rax)
    jmp leave_user

trap_in_kernel:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rbp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %rbx
    pushq %rax
    movq %rsp, %rdi
    movq %rsp, %rbx
    subq $512, %rsp
    andq $-16, %rsp
    fxsave64 (%rsp)
    callq kernel_trap
    fxrstor64 (%rsp)
    movq %rbx, %rsp
    popq %rax
    popq %rbx
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rbp
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    addq $16, %rsp
    iretq

    # One entry for each vector, 16 bytes each; the processor pushes an error code for some of them.
    .globl trap_entries
    .balign 16
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp trap
    .set vector, vector + 1
    .endr

    # The kernel's own control of SSE: no exceptions, whatever the user has set.
    .section .rodata
    .balign 4
masked:
    .long 0x1f80
    .section .text

    # (rdi top, rsi function, rdx argument): goes on at another stack and never returns.
    .globl switch_stack
switch_stack:
    movq %rdi, %rsp
    xorl %ebp, %ebp
    movq %rdx, %rdi
    callq *%rsi
    ud2

    # Deliberate violations. Each answers the error code of its page fault, or -1 if there was none. probe_landing is
    # where the page-fault handler goes on; it finds the stack as the probe has left it in probe_stack.
    # (rdi address, rsi where to note the stack, rdx the byte to be stored)
    .globl probe_load, probe_store, probe_call, probe_landing
probe_load:
    pushq %rbx
    movq %rsp, (%rsi)
    movb (%rdi), %al
    jmp 2f
probe_store:
    pushq %rbx
    movq %rsp, (%rsi)
    movb %dl, (%rdi)
    jmp 2f
probe_call:
    pushq %rbx
    movq %rsp, (%rsi)
    callq *%rdi
2:  movq $-1, %rax
    popq %rbx
    retq
probe_landing:
    # rax is the error code, rsp what was noted.
    popq %rbx
    retq

    # What the compiler and its library call. None of them uses more than the string instructions.
    .globl memcpy, memmove, memset, memcmp, bcmp
memcpy:
    movq %rdi, %rax
copy_up:
    movq %rdx, %rcx
    shrq $3, %rcx
    rep movsq
    movl %edx, %ecx
    andl $7, %ecx
    rep movsb
    retq
memmove:
    movq %rdi, %rax
    movq %rdi, %r8
    subq %rsi, %r8
    cmpq %rdx, %r8
    jae copy_up
    movq %rdx, %rcx
    leaq -1(%rdi, %rdx), %rdi
    leaq -1(%rsi, %rdx), %rsi
    std
    rep movsb
    cld
    retq
memset:
    movq %rdi, %r8
    movzbl %sil, %eax
    movabsq $0x0101010101010101, %rcx
    imulq %rcx, %rax
    movq %rdx, %rcx
    shrq $3, %rcx
    rep stosq
    movl %edx, %ecx
    andl $7, %ecx
    rep stosb
    movq %r8, %rax
    retq
bcmp:
memcmp:
    xorl %eax, %eax
    movq %rdx, %rcx
    cmpq %rcx, %rcx
    repe cmpsb
    je 1f
    movzbl -1(%rdi), %eax
    movzbl -1(%rsi), %ecx
    subl %ecx, %eax
1:  retq

    # Nothing is ever unwound: the library's code names these and never calls them.
    .globl rust_eh_personality, _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2
