/* The break against mappings in its way: it stops before them and leaves them alone. */
#define _GNU_SOURCE
#include "check.h"
#include <stdint.h>
#include <sys/mman.h>

static char *first;

static void say(const char *what, void *result)
{
    if (result == (void *)-1)
        printf("%-40s %s\n", what, error_name());
    else
        printf("%-40s break at %ld\n", what, (long)((char *)sbrk(0) - first));
}

int main(void)
{
    static char buffer[4096];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    /* Whole pages, so that all that follows is at the same place within a page. */
    CHECK(sbrk((intptr_t)(-(uintptr_t)sbrk(0) & (PAGE - 1))) != (void *)-1);
    first = sbrk(0);

    say("a few bytes", sbrk(100));
    memset(first, 1, 100);
    say("the rest of the page", sbrk(PAGE - 100));
    for (int at = 100; at < PAGE; at++)
        CHECK(first[at] == 0);
    say("back", sbrk(-PAGE));
    say("and forth", sbrk(PAGE));
    CHECK(first[0] == 0);

    char *wall = mmap(first + 16 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(wall == first + 16 * PAGE);
    memset(wall, 'w', 2 * PAGE);
    say("over the neighbour", sbrk(30 * PAGE));
    say("into the neighbour", sbrk(16 * PAGE));
    say("up to the neighbour", sbrk(15 * PAGE));
    say("up to a page before it", sbrk(14 * PAGE));
    say("one byte more", sbrk(1));
    say("back to a page in the middle", brk(first + 10 * PAGE) == 0 ? first : (void *)-1);
    int grown = 0;
    while (sbrk(1000) != (void *)-1)
        grown++;
    say("in small steps", sbrk(0));
    printf("%d steps\n", grown);
    memset(first, 'h', (size_t)((char *)sbrk(0) - first));
    for (int at = 0; at < 2 * PAGE; at++)
        CHECK(wall[at] == 'w');
    puts("the neighbour is as it was");

    CHECK(munmap(wall, 2 * PAGE) == 0);
    say("without the neighbour", sbrk(30 * PAGE));
    say("to an address", brk(first + 40 * PAGE + 1) == 0 ? first : (void *)-1);
    char *within = mmap(first + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(within == first + 4 * PAGE && within[0] == 0);
    memset(within, 'i', PAGE);
    say("shrunk to the middle of a mapping within", brk(within + 100) == 0 ? first : (void *)-1);
    CHECK(within[0] == 'i' && within[PAGE - 1] == 'i');
    say("grown again", sbrk(8 * PAGE));
    CHECK(within[0] == 'i' && within[PAGE] == 0 && first[0] == 'h');
    say("below its start", brk((void *)(uintptr_t)PAGE) == 0 ? first : (void *)-1);
    say("to where there is no memory", brk((void *)(UINTPTR_MAX - 100)) == 0 ? first : (void *)-1);
    return 0;
}
