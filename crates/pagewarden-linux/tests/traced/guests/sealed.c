/* What a program denies itself: changes of its mappings, and code that it has written. */
#include "guest.h"
#include <sys/prctl.h>
#include <sys/shm.h>

#define SYS_MSEAL 462
#define SET_MDWE 65
#define GET_MDWE 66

static void tell(const char *name, long result)
{
    say("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "done");
}

static void tell_map(const char *name, void *map)
{
    tell(name, map == MAP_FAILED ? -1 : 0);
}

static int sealed(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, 8 * PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    memset(map, 7, 8 * PAGE);
    CHECK(munmap(map + 6 * PAGE, PAGE) == 0);
    tell("seal over a hole", syscall(SYS_MSEAL, map, 8 * PAGE, 0));
    tell("seal", syscall(SYS_MSEAL, map + 2 * PAGE, PAGE, 0));
    tell("seal again", syscall(SYS_MSEAL, map + 2 * PAGE, PAGE, 0));
    tell("munmap", munmap(map, 4 * PAGE));
    tell("mmap", mmap(map + PAGE, 2 * PAGE, RW, PRIVATE | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    tell("mprotect", mprotect(map, 6 * PAGE, PROT_READ));
    tell("mremap", mremap(map + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    tell("discard what can be written", madvise(map + 2 * PAGE, PAGE, MADV_DONTNEED));
    CHECK(map[2 * PAGE] == 0 && map[3 * PAGE] == 7);
    CHECK(mprotect(map + 3 * PAGE, PAGE, PROT_READ) == 0);
    tell("seal what is read-only", syscall(SYS_MSEAL, map + 3 * PAGE, PAGE, 0));
    tell("discard it", madvise(map + 3 * PAGE, PAGE, MADV_DONTNEED));
    int id = shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600);
    char *segment = shmat(id, NULL, 0);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0 && segment != (void *)-1);
    tell("seal a part of a segment", syscall(SYS_MSEAL, segment + PAGE, PAGE, 0));
    tell("shmdt", shmdt(segment));
    segment[PAGE] = 1;
    pid_t child = fork();
    if (child == 0) {
        tell("munmap in the child", munmap(map + 2 * PAGE, PAGE));
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    return 0;
}

static int denied(int argc, char **argv)
{
    (void)argc, (void)argv;
    say("flags %d\n", prctl(GET_MDWE, 0, 0, 0, 0));
    tell_map("rwx", mmap(NULL, PAGE, RW | PROT_EXEC, PRIVATE, -1, 0));
    return 0;
}

static int denies_itself(int argc, char **argv)
{
    CHECK(argc == 1);
    unsigned long flags = strtoul(argv[0], NULL, 0);
    char *map = mmap(NULL, 3 * PAGE, RW | PROT_EXEC, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    tell("a word too many", prctl(SET_MDWE, flags, 1, 0, 0));
    tell("set", prctl(SET_MDWE, flags, 0, 0, 0));
    tell("unset", prctl(SET_MDWE, 0, 0, 0, 0));
    denied(0, NULL);
    tell("rwx stays", mprotect(map, PAGE, PROT_READ | PROT_EXEC));
    tell("rw", mprotect(map, 2 * PAGE, RW));
    tell("rw to rx", mprotect(map, 3 * PAGE, PROT_READ | PROT_EXEC));
    pid_t child = fork();
    if (child == 0) {
        denied(0, NULL);
        _exit(0);
    }
    CHECK(status_of(child) == 0);
    become("denied", "");
    return 1;
}

const struct guest_case sealed_cases[] = {
    { "sealed", sealed },
    { "denied", denied },
    { "denies_itself", denies_itself },
    { NULL, NULL },
};
