/* One way to want memory for each argument; prints what it got. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define GIB (1ul << 30)

static void say(const char *what, int failed)
{
    printf("%s: %s\n", what, failed ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

static void *map(size_t size, int prot, int flags)
{
    return mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static const int RW = PROT_READ | PROT_WRITE;

static void want_malloc(void)
{
    say("malloc 512M", malloc(512 * MIB) == NULL);
    char *small = malloc(16 * MIB);
    say("malloc 16M", small == NULL);
    if (small)
        memset(small, 1, 16 * MIB);
    int count = 0;
    while (count < 100000 && malloc(MIB))
        count++;
    say("malloc 1M again and again", 1);
    printf("count %d\n", count);
}

static void want_break(void)
{
    say("sbrk 512M", sbrk(512 * MIB) == (void *)-1);
    char *start = sbrk(MIB);
    say("sbrk 1M", start == (void *)-1);
    if (start != (void *)-1)
        memset(start, 1, MIB);
}

static void want_reserve(void)
{
    char *space = map(1024 * GIB, PROT_NONE, 0);
    say("reserve 1T", space == MAP_FAILED);
    if (space == MAP_FAILED)
        return;
    say("commit 1G of it", mprotect(space, GIB, RW));
    say("commit 16M of it", mprotect(space + 8 * MIB, 16 * MIB, RW));
    memset(space + 8 * MIB, 1, 16 * MIB);
    say("drop it", munmap(space, 1024 * GIB));
}

static void want_address_space(void)
{
    say("reserve 1G", map(GIB, PROT_NONE, 0) == MAP_FAILED);
    say("reserve 1M", map(MIB, PROT_NONE, 0) == MAP_FAILED);
}

static void want_noreserve(void)
{
    say("noreserve 512M", map(512 * MIB, RW, MAP_NORESERVE) == MAP_FAILED);
}

static void want_shared(void)
{
    void *shared = mmap(NULL, 512 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    say("shared anonymous 512M", shared == MAP_FAILED);
    int file = memfd_create("budget", 0);
    int failed = ftruncate(file, 512 * MIB) || mmap(NULL, 512 * MIB, RW, MAP_SHARED, file, 0) == MAP_FAILED;
    say("memfd 512M", failed);
    int id = shmget(IPC_PRIVATE, 512 * MIB, IPC_CREAT | 0600);
    failed = id < 0 || shmat(id, NULL, 0) == (void *)-1;
    int why = errno;
    if (id >= 0)
        shmctl(id, IPC_RMID, NULL);
    errno = why;
    say("SysV segment 512M", failed);
}

static void want_fork(void)
{
    char *block = map(150 * MIB, RW, 0);
    say("map 150M", block == MAP_FAILED);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    say("fork", child < 0);
    if (child > 0)
        waitpid(child, NULL, 0);
    say("unmap", munmap(block, 150 * MIB));
    child = fork();
    if (child == 0)
        _exit(0);
    say("fork again", child < 0);
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* Each child keeps what it got until all have tried. */
static void want_children(void)
{
    int tried[2], end[2], got = 0;
    if (pipe(tried) || pipe(end))
        abort();
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child < 0)
            abort();
        if (child > 0)
            continue;
        close(end[1]);
        char *block = malloc(100 * MIB), mark = block != NULL;
        if (block)
            memset(block, 1, 100 * MIB);
        if (write(tried[1], &mark, 1) != 1 || read(end[0], &mark, 1) != 0)
            abort();
        _exit(0);
    }
    for (int i = 0; i < 4; i++) {
        char mark = 0;
        if (read(tried[0], &mark, 1) != 1)
            abort();
        got += mark;
    }
    close(end[1]);
    while (wait(NULL) > 0)
        ;
    printf("%d of 4 children got it\n", got);
    say("all is free again, malloc 100M", malloc(100 * MIB) == NULL);
}

static void want_lock(void)
{
    char *block = map(8 * MIB, RW, 0);
    say("lock 8M", mlock(block, 8 * MIB));
    say("lock 64K", mlock(block, 65536));
}

static void want_maps(void)
{
    int count = 0;
    while (count < 100000 && map(4096, count % 2 ? PROT_READ : RW, 0) != MAP_FAILED)
        count++;
    int why = errno;
    printf("count %d\n", count);
    errno = why;
    say("one more", 1);
}

static void want_executable(void)
{
    say("map rwx", map(4096, RW | PROT_EXEC, 0) == MAP_FAILED);
    char *page = map(4096, RW, 0);
    say("rw to rx", mprotect(page, 4096, PROT_READ | PROT_EXEC));
    page = map(4096, RW, 0);
    say("rw to rwx", mprotect(page, 4096, RW | PROT_EXEC));
    page = map(4096, PROT_READ | PROT_EXEC, 0);
    say("map rx", page == MAP_FAILED);
    say("rx to rwx", mprotect(page, 4096, RW | PROT_EXEC));
}

static void want_bypass(void)
{
    say("io_uring_setup", syscall(425, 1, NULL) < 0);
    say("userfaultfd", syscall(323, 0) < 0);
    say("ptrace", syscall(101, 0, 0, 0, 0) < 0);
    say("x32", syscall(0x40000000 | 39) < 0);
}

/* getpid by the entry of 32-bit programs, which 64-bit ones can use too. */
static void want_old_entry(void)
{
    pid_t child = fork();
    if (child == 0) {
        int result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
        _exit(result > 0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("int 0x80: %s\n", WIFSIGNALED(status) ? "killed" : "not killed");
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*want)(void); } ways[] = {
        { "malloc", want_malloc }, { "break", want_break }, { "reserve", want_reserve },
        { "space", want_address_space }, { "noreserve", want_noreserve }, { "shared", want_shared },
        { "fork", want_fork }, { "children", want_children }, { "lock", want_lock }, { "maps", want_maps },
        { "executable", want_executable }, { "bypass", want_bypass },
        { "old-entry", want_old_entry },
    };
    for (size_t i = 0; argc == 2 && i < sizeof ways / sizeof *ways; i++) {
        if (strcmp(ways[i].name, argv[1]) == 0) {
            ways[i].want();
            return 0;
        }
    }
    return 2;
}
