# From the machine as QEMU leaves it to 64-bit code at the kernel's own addresses.
#
# The first processor starts in 32-bit protected mode, without paging, with the address of the start info in ebx (PVH).
# The others start in real mode, in a copy of boot_trampoline. Both meet in long_mode, in tables that show the first GiB
# three times: where it is, in the direct map, and in the last 2 GiB.

    .set PRESENT_WRITABLE, 3
    .set HUGE, 0x80

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long boot_start

    .section .boot.text, "ax", @progbits
    .code32
    .globl boot_start
boot_start:
    cli
    cld
    movl %ebx, %edi

    movl $(boot_directory_pointers + PRESENT_WRITABLE), boot_root
    movl $(boot_directory_pointers + PRESENT_WRITABLE), boot_root + 256 * 8
    movl $(boot_kernel_pointers + PRESENT_WRITABLE), boot_root + 511 * 8
    movl $(boot_directory + PRESENT_WRITABLE), boot_directory_pointers
    movl $(boot_directory + PRESENT_WRITABLE), boot_kernel_pointers + 510 * 8
    movl $(PRESENT_WRITABLE + HUGE), %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_directory(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 1b
    jmp long_mode

    .globl boot_protected
boot_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %edi, %edi

long_mode:
    movl $boot_root, %eax
    movl %eax, %cr3
    movl $0x620, %eax           # CR4: PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx      # EFER: long mode, no-execute
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax      # CR0: paging, write protection, NE, ET, MP, protection; EM is off
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $boot_64

    .code64
boot_64:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movabsq $boot_stack_top, %rsp
    movq (%rsp), %rsp
    xorl %ebp, %ebp
    movabsq $kernel_entry, %rax
    callq *%rax
    ud2

    .globl boot_trampoline, boot_trampoline_end
    .code16
boot_trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + (boot_trampoline_gdt - boot_trampoline)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $boot_protected
    .balign 8
boot_trampoline_gdt:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
boot_trampoline_end:
    .code64

    .section .boot.data, "aw", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 0x08: 64-bit code
    .quad 0x00cf92000000ffff    # 0x10: data
    .quad 0x00cf9a000000ffff    # 0x18: 32-bit code
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

    .section .boot.bss, "aw", @nobits
    .balign 4096
boot_root:
    .skip 4096
boot_directory_pointers:
    .skip 4096
boot_kernel_pointers:
    .skip 4096
boot_directory:
    .skip 4096
