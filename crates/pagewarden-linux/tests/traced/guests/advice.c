/* process_madvise, remap_file_pages and sealed memfds. */
#include "guest.h"
#include <sched.h>
#include <sys/uio.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static long advise(int pidfd, const void *ranges, size_t count, int advice)
{
    return syscall(SYS_process_madvise, pidfd, ranges, count, advice, 0);
}

static void tell(const char *what, long result)
{
    if (result < 0)
        say("%s %s\n", what, strerrorname_np(errno));
    else
        say("%s %ld\n", what, result);
}

static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Whose memory a pidfd is about decides what advice it takes. */
static int advised_processes(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, 4 * PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    struct iovec range = { map, 2 * PAGE };
    int own = pidfd_of(getpid());
    CHECK(own >= 0);
    tell("own", advise(own, &range, 1, MADV_DONTFORK));
    tell("this thread", advise(-10000, &range, 1, MADV_DOFORK));
    tell("this process", advise(-10001, &range, 1, MADV_DONTDUMP));
    tell("not a pidfd", advise(1, &range, 1, MADV_DONTFORK));
    tell("closed", advise(900, &range, 1, MADV_DONTFORK));
    /* A child with our memory may give us any advice: it is its own memory too. */
    pid_t child = vfork();
    if (child == 0) {
        tell("sharing", advise(own, &range, 1, MADV_DONTFORK));
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    map[3 * PAGE] = 7;
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct iovec rest = { map + 3 * PAGE, PAGE };
        tell("parent cold", advise(own, &rest, 1, MADV_COLD));
        tell("parent discard", advise(own, &rest, 1, MADV_DONTNEED));
        tell("parent mark", advise(own, &rest, 1, MADV_DONTFORK));
        tell("parent nonsense", advise(own, &rest, 1, 999));
        tell("parent bad range", advise(own, (void *)1, 1, MADV_DONTNEED));
        /* What was marked is not here. */
        tell("not inherited", munmap(map, 2 * PAGE));
        tell("hole", madvise(map, PAGE, MADV_NORMAL));
        _exit(0);
    }
    int other = pidfd_of(child);
    CHECK(status_of(child) == 0);
    tell("gone", advise(other, &range, 1, MADV_DONTFORK));
    tell("gone cold", advise(other, &range, 1, MADV_COLD));
    say("kept %d\n", map[3 * PAGE]);
    return 0;
}

static struct iovec moving;
static int stop;

static void *move_range(void *bounds)
{
    char *map = bounds;
    for (unsigned long turn = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); turn++)
        __atomic_store_n(&moving.iov_base, map + (turn & 7) * 2 * PAGE, __ATOMIC_RELAXED);
    return NULL;
}

/* Another thread changes the range that is advised, all the time: whichever it was that was marked, the child's memory
   must be what the map says, which every call of the child looks at. */
static int moving_ranges(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, 16 * PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    moving = (struct iovec){ map, PAGE };
    pthread_t mover;
    CHECK(pthread_create(&mover, NULL, move_range, map) == 0);
    for (int round = 0; round < 25; round++) {
        for (int turn = 0; turn < 20; turn++)
            CHECK(advise(-10000, &moving, 1, turn & 1 ? MADV_DONTFORK : MADV_DOFORK) == (long)PAGE);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(munmap(map + 15 * PAGE, PAGE) != 0);
        CHECK(status_of(child) == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(mover, NULL) == 0);
    say("done\n");
    return 0;
}

/* What may become writable depends on the seals of the file, at the time when it is mapped. */
static int sealed_files(int argc, char **argv)
{
    (void)argc, (void)argv;
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, 8 * PAGE) == 0);
    char *before = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    char *reader = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(before != MAP_FAILED && reader != MAP_FAILED);
    tell("seal write", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    tell("seal future", fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    before[0] = 1;
    tell("mapped before", mprotect(reader, PAGE, RW));
    tell("shared writable", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    tell("validated", mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE, fd, 0) == MAP_FAILED ? -1 : 0);
    tell("private writable", mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    char *after = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(after != MAP_FAILED);
    tell("mapped after", mprotect(after, PAGE, RW));
    /* The prefix becomes writable, the rest cannot. */
    CHECK(mmap(after, PAGE, PROT_READ, PRIVATE | MAP_FIXED, -1, 0) == after);
    tell("prefix", mprotect(after, 2 * PAGE, RW));
    after[0] = 1;
    tell("remap writable", remap_file_pages(before, PAGE, 0, 3, 0));
    tell("remap read-only", remap_file_pages(reader + 2 * PAGE, PAGE, 0, 3, 0));
    tell("remapped", mprotect(reader + 2 * PAGE, PAGE, RW));
    tell("beside", mprotect(reader + PAGE, PAGE, RW));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reading = open(path, O_RDONLY);
    CHECK(reading >= 0);
    char *weak = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reading, 0);
    CHECK(weak != MAP_FAILED);
    tell("opened for reading", remap_file_pages(weak, PAGE, 0, 1, 0));
    tell("executable", mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    return 0;
}

const struct guest_case advice_cases[] = {
    { "advised_processes", advised_processes },
    { "moving_ranges", moving_ranges },
    { "sealed_files", sealed_files },
    { NULL, NULL },
};
