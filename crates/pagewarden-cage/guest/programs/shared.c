/* Memory that really is shared over fork: anonymous maps, and segments of System V with their counts. */
#include "processes.h"
#include <sys/shm.h>

static void anonymous(void)
{
    volatile int *words = map_some(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    words[0] = 1;
    pid_t child = clean_fork();
    if (child == 0) {
        words[1] = words[0] + 1;
        words[40 * PAGE / 4] = 77;
        pid_t grandchild = clean_fork();
        if (grandchild == 0) {
            words[2] = words[1] + 1;
            /* Unmapping and splitting are each one's own. */
            CHECK(munmap((void *)words, PAGE) == 0);
            CHECK(mprotect((char *)words + 8 * PAGE, PAGE, PROT_READ) == 0);
            words[20 * PAGE / 4] = 20;
            _exit(0);
        }
        CHECK(waitpid(grandchild, NULL, 0) == grandchild);
        words[8 * PAGE / 4] = 8;
        words[3] = words[2] + 1;
        _exit(3);
    }
    printf("anonymous: %s", end_of(child));
    printf(", %d %d %d %d, %d %d %d\n", words[0], words[1], words[2], words[3], words[40 * PAGE / 4],
           words[20 * PAGE / 4], words[8 * PAGE / 4]);

    /* Split by rights, then passed on: all parts stay shared. */
    CHECK(mprotect((char *)words + 16 * PAGE, 16 * PAGE, PROT_READ) == 0);
    CHECK(mprotect((char *)words + 32 * PAGE, 8 * PAGE, PROT_NONE) == 0);
    child = clean_fork();
    if (child == 0) {
        CHECK(mprotect((char *)words + 16 * PAGE, 24 * PAGE, PROT_READ | PROT_WRITE) == 0);
        for (int page = 0; page < 64; page++)
            words[page * PAGE / 4 + 9] = page;
        _exit(0);
    }
    printf("opened by a child: %s", end_of(child));
    CHECK(mprotect((char *)words + 32 * PAGE, 8 * PAGE, PROT_READ) == 0);
    int sum = 0;
    for (int page = 0; page < 64; page++)
        sum += words[page * PAGE / 4 + 9];
    printf(", and the parent sees %d\n", sum);
    CHECK(munmap((void *)words, 64 * PAGE) == 0);
}

static unsigned attached(int id)
{
    struct shmid_ds status;
    CHECK(shmctl(id, IPC_STAT, &status) == 0);
    return (unsigned)status.shm_nattch;
}

static void segments(void)
{
    enum { BYTES = 5 * PAGE + 100 };
    int id = shmget(IPC_PRIVATE, BYTES, IPC_CREAT | 0600);
    CHECK(id >= 0);
    struct shmid_ds status;
    CHECK(shmctl(id, IPC_STAT, &status) == 0);
    CHECK(status.shm_cpid == getpid() && status.shm_lpid == 0 && status.shm_segsz == BYTES);
    printf("a segment of %d bytes, mode %o, %u attaches\n", (int)status.shm_segsz, status.shm_perm.mode,
           (unsigned)status.shm_nattch);
    volatile int *words = shmat(id, NULL, 0);
    CHECK(words != (void *)-1);
    const volatile int *second = shmat(id, NULL, SHM_RDONLY);
    CHECK(second != (void *)-1 && second != words);
    words[1000] = 5;
    printf("attached twice: %u, and the second says %d\n", attached(id), second[1000]);

    pid_t child = clean_fork();
    if (child == 0) {
        CHECK(attached(id) == 4);
        words[0] = (int)attached(id);
        CHECK(shmdt((void *)second) == 0);
        words[1] = (int)attached(id);
        words[PAGE + 20] = 6;
        CHECK(shmdt((void *)second) == -1 && errno == EINVAL);
        if (clean_fork() == 0) {
            words[2] = (int)attached(id);
            _exit(0);
        }
        CHECK(wait(NULL) > 0);
        words[3] = (int)attached(id);
        _exit(2);
    }
    printf("a child: %s", end_of(child));
    printf(", which saw %d %d %d %d; now %u\n", words[0], words[1], words[2], words[3], attached(id));
    CHECK(second[PAGE + 20] == 6);

    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
    CHECK(shmctl(id, IPC_STAT, &status) == 0 && (status.shm_perm.mode & SHM_DEST));
    puts("removed, and still there");
    child = clean_fork();
    if (child == 0)
        _exit(words[1000]);
    printf("for a child too: %s\n", end_of(child));
    CHECK(shmdt((void *)words) == 0 && shmdt((void *)second) == 0);
    CHECK(shmctl(id, IPC_STAT, &status) == -1);
    printf("until the last detach: %s\n", error_name());
}

/* By key: a child finds what its parent has made, and is charged with removing it. */
static void keys(void)
{
    key_t key = 0x50570000 + (getpid() & 0xffff);
    int id = shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0);
    CHECK(shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600) == -1);
    printf("once more: %s\n", error_name());
    CHECK(shmget(key, 2 * PAGE, 0600) == -1);
    printf("larger: %s\n", error_name());
    pid_t child = clean_fork();
    if (child == 0) {
        int *words = shmat(shmget(key, 0, 0600), NULL, 0);
        CHECK(words != (void *)-1);
        words[0] = 42;
        CHECK(shmctl(id, IPC_RMID, NULL) == 0);
        _exit(words[0]);
    }
    printf("by key: %s\n", end_of(child));
    CHECK(shmget(key, PAGE, 0600) == -1);
    printf("removed: %s\n", error_name());
    CHECK(shmat(id, NULL, 0) == (void *)-1);
    printf("attach it: %s\n", error_name());
}

static void places(void)
{
    int id = shmget(IPC_PRIVATE, 3 * PAGE, 0600);
    volatile char *room = map_some(8 * PAGE, PROT_NONE, MAP_PRIVATE);
    CHECK(munmap((void *)(room + PAGE), 4 * PAGE) == 0);
    CHECK(shmat(id, (void *)(room + PAGE + 100), 0) == (void *)-1 && errno == EINVAL);
    CHECK(shmat(id, (void *)(room + PAGE + 100), SHM_RND) == room + PAGE);
    CHECK(shmat(id, (void *)(room + 4 * PAGE), 0) == (void *)-1);
    printf("over a neighbour: %s\n", error_name());
    CHECK(shmat(id, (void *)(room + 4 * PAGE), SHM_REMAP) == room + 4 * PAGE);
    room[PAGE] = 'x';
    CHECK(room[4 * PAGE] == 'x');
    printf("%u attaches at places of our choice\n", attached(id));
    CHECK(munmap((void *)(room + PAGE), PAGE) == 0 && attached(id) == 2);
    CHECK(munmap((void *)room, 8 * PAGE) == 0 && attached(id) == 0);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}

int main(void)
{
    anonymous();
    segments();
    keys();
    places();
    return 0;
}
