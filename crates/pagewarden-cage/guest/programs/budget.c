/* For cages alone, with a limit of 32 MiB: every call that wants more is refused, and the program goes on. */
#define _GNU_SOURCE
#include "processes.h"
#include <sys/shm.h>

enum { MIB = 1 << 20 };

int main(void)
{
    char *maps[100];
    int count = 0;
    while (count < 100) {
        char *block = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            break;
        memset(block, count, MIB);
        maps[count++] = block;
    }
    CHECK(errno == ENOMEM && count > 20 && count < 32);
    CHECK(allocate(2 * MIB) == NULL && errno == ENOMEM);
    CHECK(sbrk(2 * MIB) == (void *)-1 && errno == ENOMEM);
    CHECK(shmget(IPC_PRIVATE, 2 * MIB, 0600) == -1 && errno == ENOMEM);
    CHECK(mremap(maps[0], MIB, 3 * MIB, MREMAP_MAYMOVE) == MAP_FAILED && errno == ENOMEM);
    CHECK(fork() == -1 && errno == ENOMEM);
    puts("mmap, malloc, sbrk, shmget, mremap and fork have no memory");

    char *reserved = mmap(NULL, 1 << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(reserved != MAP_FAILED);
    CHECK(mprotect(reserved, 64 * MIB, PROT_READ | PROT_WRITE) == -1 && errno == ENOMEM);
    puts("a reservation is free, until it is opened");

    for (int i = 0; i < count; i++)
        for (int at = 0; at < MIB; at += 999)
            CHECK(maps[i][at] == (char)i);
    /* A fork is charged for what the child could come to write. */
    while (count > 6)
        CHECK(munmap(maps[--count], MIB) == 0);
    pid_t child = clean_fork();
    if (child == 0) {
        for (int i = 0; i < count; i++)
            memset(maps[i], 100 + i, MIB);
        CHECK(mmap(NULL, 20 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        _exit(maps[5][5]);
    }
    printf("with less, a fork has enough: %s\n", end_of(child));
    char *block = allocate(10 * MIB);
    CHECK(block != NULL);
    memset(block, 1, 10 * MIB);
    puts("and so has malloc");
    return 0;
}
