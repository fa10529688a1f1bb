/* Memory up to a limit, past it, and after it was given back. */
#include "guest.h"
#include <sys/shm.h>

/* malloc until there is no more; the program lives, and what it frees it can have again. */
static int malloc_past(int argc, char **argv)
{
    (void)argc, (void)argv;
    enum { BLOCK = 4 << 20, MOST = 64 };
    char *blocks[MOST];
    int first = -1;
    for (int round = 0; round < 5; round++) {
        int count = 0;
        for (; count < MOST; count++) {
            errno = 0;
            blocks[count] = malloc(BLOCK);
            if (!blocks[count])
                break;
            memset(blocks[count], count + 1, BLOCK);
        }
        CHECK(errno == ENOMEM);
        CHECK(first == -1 || count == first);
        first = count;
        for (int i = 0; i < count; i++) {
            CHECK(blocks[i][BLOCK - 1] == (char)(i + 1));
            free(blocks[i]);
        }
    }
    say("%d\n", first);
    return 0;
}

static int fork_past(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, 40 * MIB, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    CHECK(fork() == -1 && errno == ENOMEM);
    pid_t child = vfork();
    if (child == 0)
        _exit(3);
    CHECK(child > 0 && WEXITSTATUS(status_of(child)) == 3);
    CHECK(munmap(map, 40 * MIB) == 0);
    for (int i = 0; i < 20; i++) {
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            map = mmap(NULL, 40 * MIB, RW, PRIVATE, -1, 0);
            _exit(map == MAP_FAILED ? 1 : 0);
        }
        CHECK(status_of(child) == 0);
    }
    say("done\n");
    return 0;
}

static int memfd_past(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 20; i++) {
        int fd = memfd_create("block", 0);
        CHECK(fd >= 0);
        CHECK(ftruncate(fd, 100 * MIB) == -1 && errno == ENOMEM);
        CHECK(fallocate(fd, 0, 0, 100 * MIB) == -1 && errno == ENOMEM);
        CHECK(ftruncate(fd, 40 * MIB) == 0);
        int other = memfd_create("other", 0);
        CHECK(other >= 0 && ftruncate(other, 40 * MIB) == -1 && errno == ENOMEM);
        char *map = mmap(NULL, 40 * MIB, RW, MAP_SHARED, fd, 0);
        CHECK(map != MAP_FAILED);
        CHECK(close(fd) == 0);
        /* The mapping alone keeps it. */
        CHECK(ftruncate(other, 40 * MIB) == -1 && errno == ENOMEM);
        CHECK(munmap(map, 40 * MIB) == 0);
        CHECK(ftruncate(other, 40 * MIB) == 0 && close(other) == 0);
    }
    say("done\n");
    return 0;
}

static int shm_past(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 20; i++) {
        CHECK(shmget(IPC_PRIVATE, 100 * MIB, 0600) == -1 && errno == ENOMEM);
        int id = shmget(IPC_PRIVATE, 40 * MIB, 0600);
        CHECK(id >= 0);
        int other = shmget(IPC_PRIVATE, 40 * MIB, 0600);
        int error = errno;
        char *map = shmat(id, NULL, 0);
        int gone = shmctl(id, IPC_RMID, NULL);
        if (other >= 0)
            shmctl(other, IPC_RMID, NULL);
        CHECK(other == -1 && error == ENOMEM && gone == 0 && map != (void *)-1);
        map[40 * MIB - 1] = 1;
        CHECK(shmdt(map) == 0);
    }
    say("done\n");
    return 0;
}

static int shared_past(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 20; i++) {
        char *map = mmap(NULL, 40 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(map != MAP_FAILED);
        CHECK(mmap(NULL, 40 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        /* A child shares it and is not charged again; its end gives nothing back. */
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(munmap(map, 40 * MIB));
        CHECK(status_of(child) == 0);
        CHECK(mmap(NULL, 40 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        CHECK(munmap(map, 40 * MIB) == 0);
    }
    say("done\n");
    return 0;
}

/* Four children want 100 MiB each, at once and then one after the other. */
static int family(int argc, char **argv)
{
    (void)argc, (void)argv;
    int go[2], told[2], granted = 0;
    CHECK(pipe(go) == 0 && pipe(told) == 0);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child != 0)
            continue;
        char byte, got = mmap(NULL, 100 * MIB, RW, PRIVATE, -1, 0) != MAP_FAILED;
        close(go[1]);
        CHECK(write(told[1], &got, 1) == 1);
        _exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
    }
    for (int i = 0; i < 4; i++) {
        char got;
        CHECK(read(told[0], &got, 1) == 1);
        granted += got;
    }
    CHECK(close(go[1]) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(wait(NULL) > 0);
    say("at once %d\n", granted);
    granted = 0;
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(mmap(NULL, 100 * MIB, RW, PRIVATE, -1, 0) != MAP_FAILED);
        granted += WEXITSTATUS(status_of(child));
    }
    say("in turn %d\n", granted);
    return 0;
}

static int reserve(int argc, char **argv)
{
    (void)argc, (void)argv;
    size_t bytes = 1UL << 40;
    char *map = mmap(NULL, bytes, PROT_NONE, PRIVATE | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        say("%s\n", strerrorname_np(errno));
        return 0;
    }
    CHECK(mprotect(map + (bytes >> 1), 10 * MIB, RW) == 0);
    memset(map + (bytes >> 1), 1, 10 * MIB);
    CHECK(mprotect(map, 1UL << 30, RW) == -1 && errno == ENOMEM);
    CHECK(munmap(map, bytes) == 0);
    say("reserved\n");
    return 0;
}

/* Neighbours with different rights until there are too many regions. */
static int many_regions(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int round = 0; round < 3; round++) {
        char *map = mmap(NULL, 1000 * PAGE, PROT_NONE, PRIVATE, -1, 0);
        CHECK(map != MAP_FAILED);
        int pieces = 0;
        while (pieces < 499 && mprotect(map + (size_t)(2 * pieces + 1) * PAGE, PAGE, PROT_READ) == 0)
            pieces++;
        CHECK(pieces == 499 || errno == ENOMEM);
        CHECK(munmap(map, 1000 * PAGE) == 0);
        say("%s\n", pieces == 499 ? "all" : pieces > 3 ? "some" : "few");
    }
    return 0;
}

static int lock(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, 2 * MIB, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    for (int i = 0; i < 5; i++) {
        CHECK(mlock(map, 2 * MIB) == -1 && errno == ENOMEM);
        CHECK(mlock(map, MIB / 2) == 0);
        CHECK(mlock(map + MIB, MIB) == -1 && errno == ENOMEM);
        CHECK(munlock(map, MIB / 2) == 0);
    }
    say("done\n");
    return 0;
}

const struct guest_case budget_cases[] = {
    { "malloc_past", malloc_past },
    { "fork_past", fork_past },
    { "memfd_past", memfd_past },
    { "shm_past", shm_past },
    { "shared_past", shared_past },
    { "family", family },
    { "reserve", reserve },
    { "many_regions", many_regions },
    { "lock", lock },
    { NULL, NULL },
};
