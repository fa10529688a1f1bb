/* For cages alone: ends as its argument says, in a function that the report can name. */
#include "check.h"
#include <stdint.h>
#include <sys/mman.h>

static volatile int zero;

__attribute__((noinline)) static void store(uintptr_t addr)
{
    *(volatile int *)addr = 1;
}

__attribute__((noinline)) static int recurse(int depth)
{
    volatile char frame[16];
    frame[depth % 16] = 1;
    return zero ? 0 : recurse(depth + 1) + frame[depth % 16];
}

/* Called as what it is not. */
static int (*volatile function)(int) = recurse;

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *how = argv[1];
    char *map = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    map[PAGE] = 1;
    printf("map at %p\n", (void *)map);
    fflush(stdout);
    if (strcmp(how, "null") == 0)
        store(zero);
    if (strcmp(how, "hole") == 0 && munmap(map + PAGE, PAGE) == 0)
        store((uintptr_t)map + PAGE + 16);
    if (strcmp(how, "read-only") == 0 && mprotect(map, PAGE, PROT_READ) == 0)
        store((uintptr_t)map + 8);
    if (strcmp(how, "closed") == 0 && mprotect(map, PAGE, PROT_NONE) == 0)
        store((uintptr_t)map + 8);
    if (strcmp(how, "top") == 0)
        store(UINTPTR_MAX - 1);
    if (strcmp(how, "stack") == 0)
        recurse(0);
    if (strcmp(how, "division") == 0)
        zero = 100 / zero;
    if (strcmp(how, "type") == 0)
        ((void (*)(double, double))function)(1, 2);
    if (strcmp(how, "abort") == 0)
        abort();
    exit(strcmp(how, "exit") == 0 ? 33 : 0);
}
