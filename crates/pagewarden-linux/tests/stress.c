/* Eight threads of memory calls at once, among them fork. Each thread checks the bytes of its own pages; all of them
   fight over one window, the break and the budget. Ends with 0 if all is as it should be, or says what is not. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS = 8, OWN = 6, WINDOW_PAGES = 32, CHUNK = 8 * PAGE, CHUNKS = 1024 };
static char *const window = (char *)0x100000000;
static int rounds, zero_device;

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fprintf(stderr, " (errno %d)\n", errno), _exit(1))

static unsigned below(uint64_t *state, unsigned end) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (unsigned)((*state >> 11) % end);
}

static void fill(char *pages, unsigned count, uint64_t word) {
    for (unsigned page = 0; page < count; page++)
        *(uint64_t *)(pages + page * PAGE) = word + page;
}

static void check(const char *pages, unsigned count, uint64_t word, const char *when) {
    for (unsigned page = 0; page < count; page++)
        if (*(const uint64_t *)(pages + page * PAGE) != word + page)
            FAIL("page %u is wrong %s", page, when);
}

/* Pages of this thread alone: nobody else may change a byte. */
static void own_pages(uint64_t *state, uint64_t word) {
    char *pages = mmap(NULL, OWN * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        if (errno != ENOMEM) FAIL("mmap");
        return;
    }
    fill(pages, OWN, word);
    if (mprotect(pages + PAGE, 2 * PAGE, PROT_READ)) FAIL("mprotect");
    check(pages, OWN, word, "after mprotect");
    unsigned size = OWN;
    char *moved = mremap(pages, OWN * PAGE, OWN * PAGE, MREMAP_MAYMOVE);
    if (moved != pages) FAIL("mremap that does nothing");
    if (mprotect(pages + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE)) FAIL("mprotect back");
    moved = mremap(pages, OWN * PAGE, 2 * OWN * PAGE, MREMAP_MAYMOVE);
    if (moved != MAP_FAILED) {
        pages = moved;
        size = 2 * OWN;
    } else if (errno != ENOMEM) {
        FAIL("mremap");
    }
    check(pages, OWN, word, "after mremap");
    if (below(state, 8) == 0) {
        pid_t child = fork();
        if (child == 0) {
            check(pages, OWN, word, "in a child");
            fill(pages, OWN, ~word);
            _exit(munmap(pages, size * PAGE) ? 2 : 0);
        }
        int status = 0;
        if (child > 0 && (waitpid(child, &status, 0) != child || status)) FAIL("a child ended with %x", status);
        if (child < 0 && errno != ENOMEM && errno != EAGAIN) FAIL("fork");
        check(pages, OWN, word, "after a fork");
    }
    if (madvise(pages + PAGE, PAGE, MADV_DONTNEED)) FAIL("madvise");
    if (*(uint64_t *)(pages + PAGE)) FAIL("a discarded page is not empty");
    if (munmap(pages, size * PAGE)) FAIL("munmap");
}

/* Pages that all threads fight over: any answer will do, as long as it is one of Linux. */
static void common_pages(uint64_t *state) {
    char *at = window + below(state, WINDOW_PAGES) * PAGE;
    size_t size = (1 + below(state, 4)) * PAGE;
    int prot = (int)below(state, 4);
    switch (below(state, 7)) {
    case 0:
    case 1: {
        int kind = below(state, 2) ? MAP_PRIVATE : MAP_SHARED;
        char *got = mmap(at, size, prot, kind | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (got != at && errno != ENOMEM) FAIL("mmap over the window");
        break;
    }
    case 2:
        if (munmap(at, size)) FAIL("munmap of the window");
        break;
    case 3:
        if (mprotect(at, size, prot) && errno != ENOMEM) FAIL("mprotect of the window");
        break;
    case 4:
        if (madvise(at, size, MADV_DONTNEED) && errno != ENOMEM) FAIL("madvise of the window");
        break;
    case 5:
        /* The kernel touches the page: EFAULT where a store would be a SIGSEGV. */
        if (read(zero_device, at, 1) != 1 && errno != EFAULT) FAIL("a touch of the window");
        break;
    default: {
        char *to = window + (WINDOW_PAGES + 8 + below(state, WINDOW_PAGES)) * PAGE;
        char *got = mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        if (got == MAP_FAILED && errno != EFAULT && errno != ENOMEM) FAIL("mremap of the window");
    }
    }
}

static void *thread(void *argument) {
    uint64_t number = (uint64_t)(uintptr_t)argument;
    uint64_t state = number * 0x9e3779b97f4a7c15 + 1;
    uintptr_t start = (uintptr_t)syscall(SYS_brk, 0);
    for (int round = 0; round < rounds; round++) {
        own_pages(&state, number << 32 | (uint64_t)round << 8);
        for (int call = 0; call < 4; call++) common_pages(&state);
        /* Only upwards, and only a little: nobody loses what lies there. */
        if (round % 8 == 0) {
            uintptr_t now = (uintptr_t)syscall(SYS_brk, start + (uintptr_t)(round + 1) * 64);
            if (now < start) FAIL("the break has moved down");
        }
    }
    return NULL;
}

static void run_threads(int count) {
    pthread_t threads[THREADS];
    pthread_attr_t attributes;
    rounds = count;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    for (uintptr_t index = 0; index < THREADS; index++)
        if (pthread_create(&threads[index], &attributes, thread, (void *)(index + 1))) FAIL("pthread_create");
    for (int index = 0; index < THREADS; index++) pthread_join(threads[index], NULL);
    if (munmap(window, 3 * WINDOW_PAGES * PAGE)) FAIL("munmap of all");
}

/* How many chunks there is budget for. */
static int budget(void) {
    char *chunks[CHUNKS];
    int count = 0;
    while (count < CHUNKS) {
        chunks[count] = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunks[count] == MAP_FAILED) break;
        count++;
    }
    for (int index = 0; index < count; index++) munmap(chunks[index], CHUNK);
    return count;
}

int main(int argc, char **argv) {
    alarm(60);
    zero_device = open("/dev/zero", O_RDONLY);
    run_threads(1);
    int before = budget();
    run_threads(argc > 1 ? atoi(argv[1]) : 50);
    int after = budget();
    if (before == 0 || before == CHUNKS) FAIL("no limit: %d", before);
    /* The break has gone up by less than a chunk. */
    if (after + 1 < before) FAIL("budget for %d chunks before and for %d after", before, after);
    return 0;
}
