/* What would go behind the manager's back, or be writable and executable. */
#include "guest.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/uio.h>

static void tell(const char *name, long result)
{
    say("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "allowed");
}

#define TELL(call, ...) tell(#call, syscall(SYS_##call, __VA_ARGS__))

static int refused_calls(int argc, char **argv)
{
    (void)argc, (void)argv;
    char params[120] = { 0 };
    struct iovec piece = { params, 1 };
    TELL(io_uring_setup, 4, params);
    TELL(io_setup, 1, params);
    TELL(userfaultfd, 1);
    TELL(memfd_secret, 0);
    TELL(ptrace, 0, 0, 0, 0);
    TELL(process_vm_writev, getpid(), &piece, 1, &piece, 1, 0);
    TELL(personality, 0x0400000);
    TELL(clone, 0x800000 | SIGCHLD, 0, 0, 0, 0);
    tell("map_shadow_stack", syscall(453, 0, PAGE, 0));
    tell("PR_SET_MM", prctl(PR_SET_MM, PR_SET_MM_BRK, 0x10000, 0, 0));
    tell("x32", syscall(0x40000000 | SYS_getpid));
    /* What only reads stays allowed. */
    TELL(process_vm_readv, getpid(), &piece, 1, &piece, 1, 0);
    TELL(personality, 0xffffffff);
    return 0;
}

static int seccomp_filter(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct sock_filter allow = { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW };
    struct sock_fprog program = { 1, &allow };
    tell("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    TELL(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    tell("PR_SET_SECCOMP", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    void *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED && munmap(map, PAGE) == 0);
    say("done\n");
    return 0;
}

static int int80(int argc, char **argv)
{
    (void)argc, (void)argv;
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    say("int 0x80 gave %ld\n", result);
    return 0;
}

static void tell_open(const char *path, int flags, const char *mode)
{
    int next = dup(0);
    CHECK(next >= 0 && close(next) == 0);
    int fd = open(path, flags);
    say("%s %s %s\n", path, mode, fd < 0 ? strerrorname_np(errno) : "allowed");
    CHECK(fd < 0 || close(fd) == 0);
    /* Whatever was refused leaves no descriptor behind. */
    int again = dup(0);
    CHECK(again == next && close(again) == 0);
}

static int open_memory(int argc, char **argv)
{
    CHECK(argc == 1);
    CHECK(symlink("/proc/self/mem", argv[0]) == 0);
    tell_open("/proc/self/mem", O_RDONLY, "r");
    tell_open("/proc/self/mem", O_RDWR, "rw");
    tell_open("/proc/self/mem", O_WRONLY, "w");
    tell_open("/proc/thread-self/mem", O_RDWR, "rw");
    int link = open(argv[0], O_RDWR);
    say("symlink rw %s\n", link < 0 ? strerrorname_np(errno) : "allowed");
    tell("creat", syscall(SYS_creat, "/proc/self/mem", 0600));
    tell("old open", syscall(SYS_open, "/proc/self/mem", O_RDWR, 0));
    struct { uint64_t flags, mode, resolve; } how = { O_RDWR, 0, 0 };
    TELL(openat2, AT_FDCWD, "/proc/self/mem", &how, sizeof how);
    tell_open("/dev/null", O_RDWR, "rw");
    tell_open("/proc/self/oom_score_adj", O_RDWR, "rw");
    return 0;
}

static int writable_code(int argc, char **argv)
{
    (void)argc, (void)argv;
    int all = RW | PROT_EXEC;
    void *map = mmap(NULL, PAGE, all, PRIVATE, -1, 0);
    tell("rwx mmap", map == MAP_FAILED ? -1 : 0);
    map = mmap(NULL, 2 * PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    tell("rw to rwx", mprotect(map, PAGE, all));
    tell("rw to rx", mprotect(map, PAGE, PROT_READ | PROT_EXEC));
    tell("rw to r", mprotect(map, PAGE, PROT_READ));
    tell("was written, r to rx", mprotect(map, PAGE, PROT_READ | PROT_EXEC));
    map = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, PRIVATE, -1, 0);
    tell("rx mmap", map == MAP_FAILED ? -1 : 0);
    tell("rx to rwx", mprotect(map, PAGE, all));
    return 0;
}

static int stack_rights(int argc, char **argv)
{
    (void)argc, (void)argv;
    char line[512], rights[5];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]") && sscanf(line, "%*s %4s", rights) == 1)
            say("%s\n", rights);
    fclose(maps);
    return 0;
}

const struct guest_case refused_cases[] = {
    { "refused_calls", refused_calls },
    { "seccomp_filter", seccomp_filter },
    { "int80", int80 },
    { "open_memory", open_memory },
    { "writable_code", writable_code },
    { "stack_rights", stack_rights },
    { NULL, NULL },
};
