/* Single calls: registers, the stack. */
#include "guest.h"
#include <alloca.h>

/* number, rdi rsi rdx r10 r8 r9, rbx rbp r12 r13 r14 r15, rsp, flags, rcx, r11 */
enum { RAX, ARG, RBX = 7, RSP = 13, FLAGS, RCX, R11, REGISTERS };
uint64_t before[REGISTERS], after[REGISTERS];
void probe(void);
extern const char probe_return[];

#define EACH(op)                                                                                          \
    op("rdi", "8") op("rsi", "16") op("rdx", "24") op("r10", "32") op("r8", "40") op("r9", "48")          \
    op("rbx", "56") op("rbp", "64") op("r12", "72") op("r13", "80") op("r14", "88") op("r15", "96")
#define LOAD(name, at) "mov before+" at "(%rip), %" name "\n"
#define STORE(name, at) "mov %" name ", after+" at "(%rip)\n"

__asm__(".globl probe, probe_return\n"
        "probe:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        EACH(LOAD)
        "mov before(%rip), %rax\n"
        "mov %rsp, before+104(%rip)\n"
        "stc\n"
        "pushfq; popq before+112(%rip)\n"
        "syscall\n"
        "probe_return:\n"
        "pushfq; popq after+112(%rip)\n"
        "mov %rsp, after+104(%rip)\n"
        "mov %rcx, after+120(%rip); mov %r11, after+128(%rip)\n"
        "mov %rax, after(%rip)\n"
        EACH(STORE)
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");

static uint64_t probed(const char *what, long number, const uint64_t arguments[6])
{
    before[RAX] = (uint64_t)number;
    memcpy(before + ARG, arguments, 6 * sizeof *arguments);
    for (int i = RBX; i < RSP; i++)
        before[i] = 0xa5a5000000000000UL + (uint64_t)i * 0x0101010101UL;
    memset(after, 0x5a, sizeof after);
    probe();
    for (int i = ARG; i <= RSP; i++)
        if (after[i] != before[i])
            say("%s: register %d was %#lx and is %#lx\n", what, i, before[i], after[i]);
    if (after[FLAGS] != before[FLAGS])
        say("%s: flags were %#lx and are %#lx\n", what, before[FLAGS], after[FLAGS]);
    if (after[RCX] != (uint64_t)probe_return || after[R11] != before[FLAGS])
        say("%s: rcx %#lx, r11 %#lx\n", what, after[RCX] - (uint64_t)probe_return, after[R11]);
    if (after[RAX] > -PAGE)
        say("%s: error %ld\n", what, -(long)after[RAX]);
    return after[RAX];
}

#define PROBE(name, ...) probed(#name, SYS_##name, (uint64_t[6]){ __VA_ARGS__ })

static int registers(int argc, char **argv)
{
    (void)argc, (void)argv;
    uint64_t map = PROBE(mmap, 0, 8 * PAGE, RW, PRIVATE, -1UL, 0);
    *(char *)map = 1;
    /* Neighbours with different rights: several host calls for one of ours. */
    PROBE(mprotect, map + PAGE, PAGE, PROT_READ, 4, 5, 6);
    PROBE(mprotect, map + 3 * PAGE, PAGE, PROT_NONE, 4, 5, 6);
    PROBE(mprotect, map, 8 * PAGE, RW, 0x1111, 0x2222, 0x3333);
    CHECK(*(char *)map == 1);
    PROBE(mmap, map + PAGE, 2 * PAGE, PROT_READ, PRIVATE | MAP_FIXED, -1UL, 0);
    PROBE(mmap, map + PAGE, 2 * PAGE, RW, PRIVATE | MAP_FIXED_NOREPLACE, -1UL, 0);
    PROBE(madvise, map, 8 * PAGE, MADV_DONTNEED, 0x44, 0x55, 0x66);
    CHECK(*(char *)map == 0);
    uint64_t moved = PROBE(mremap, map + 4 * PAGE, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE, 0x77, 0x88);
    PROBE(mremap, moved, 64 * PAGE, PAGE, 0, 0x77, 0x88);
    PROBE(munmap, map, 4 * PAGE, 0x99, 0xaa, 0xbb, 0xcc);
    PROBE(munmap, moved, PAGE, 0x99, 0xaa, 0xbb, 0xcc);
    uint64_t end = PROBE(brk, 0, 1, 2, 3, 4, 5);
    CHECK(PROBE(brk, end + 5 * PAGE, 1, 2, 3, 4, 5) == end + 5 * PAGE);
    memset((void *)end, 1, 5 * PAGE);
    CHECK(PROBE(brk, end, 1, 2, 3, 4, 5) == end);
    CHECK(PROBE(brk, 1, 1, 2, 3, 4, 5) == end);
    /* Refused, by the manager and by the host. */
    PROBE(mmap, 0, 0, RW, PRIVATE, -1UL, 0);
    PROBE(mmap, 0, PAGE, RW, MAP_PRIVATE, 1234, 0);
    PROBE(munmap, map + 1, PAGE, 1, 2, 3, 4);
    PROBE(mprotect, map, PAGE, PROT_READ, 1, 2, 3);
    PROBE(mremap, map, PAGE, PAGE, 0xff, 1, 2);
    PROBE(ftruncate, 1234, PAGE, 1, 2, 3, 4);
    PROBE(shmget, 0, 0, 1, 2, 3, 4);
    PROBE(prlimit64, 0, 99, 0, 0, 0, 0);
    uint64_t child = PROBE(fork, 1, 2, 3, 4, 5, 6);
    if (child == 0)
        _exit(0);
    CHECK(status_of((pid_t)child) == 0);
    say("done\n");
    return 0;
}

/* Under a tracer only: by its own kernel some of these succeed. */
static int refused_registers(int argc, char **argv)
{
    (void)argc, (void)argv;
    PROBE(io_uring_setup, 1, 2, 3, 4, 5, 6);
    PROBE(ptrace, 0, 2, 3, 4, 5, 6);
    PROBE(memfd_secret, 0, 0, 3, 4, 5, 6);
    PROBE(mmap, 0, 1UL << 30, RW, PRIVATE, -1UL, 0);
    say("done\n");
    return 0;
}

static __attribute__((noinline)) int deeper(int levels)
{
    volatile char frame[1024];
    memset((char *)frame, levels, sizeof frame);
    if (levels % 512 == 0) {
        void *page = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
        CHECK(page != MAP_FAILED && munmap(page, PAGE) == 0);
    }
    int below = levels == 0 ? 0 : deeper(levels - 1);
    CHECK(frame[7] == (char)levels);
    return below + 1;
}

static int recursion(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(deeper(4 * 1024) == 4 * 1024 + 1);
    say("done\n");
    return 0;
}

/* The kernel itself is the first to write below the stack. */
static __attribute__((noinline)) void read_into_stack(size_t bytes)
{
    int fds[2];
    char *buffer = alloca(bytes);
    CHECK(pipe(fds) == 0 && write(fds[1], "abcdefgh", 8) == 8);
    CHECK(read(fds[0], buffer, 8) == 8 && memcmp(buffer, "abcdefgh", 8) == 0);
    void *page = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
    CHECK(page != MAP_FAILED && munmap(page, PAGE) == 0);
    CHECK(mprotect((void *)((uintptr_t)buffer & -PAGE), PAGE, RW) == 0);
    CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
}

static int fresh_stack(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (size_t bytes = 64 * 1024; bytes <= 4 * MIB; bytes *= 2)
        read_into_stack(bytes);
    say("done\n");
    return 0;
}

const struct guest_case call_cases[] = {
    { "registers", registers },
    { "refused_registers", refused_registers },
    { "recursion", recursion },
    { "fresh_stack", fresh_stack },
    { NULL, NULL },
};
