/* For cages alone. The heap of wasi-libc, which grows the Wasm memory, with something right above it: it stops there, finds
   what room there is below, and goes on when the way is free. */
#define _GNU_SOURCE
#include "check.h"
#include <stdint.h>
#include <sys/mman.h>

enum { WASM_PAGE = 65536 };

static uintptr_t end_of_memory(void)
{
    return (uintptr_t)__builtin_wasm_memory_size(0) * WASM_PAGE;
}

static char *wall_at(uintptr_t addr, size_t length)
{
    char *wall = mmap((void *)addr, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(wall == (char *)addr);
    memset(wall, 'w', length);
    return wall;
}

static void check_wall(const char *wall, size_t length)
{
    for (size_t at = 0; at < length; at++)
        CHECK(wall[at] == 'w');
}

/* Takes all that malloc gives, in blocks of `size`, and keeps them in a list. */
struct block {
    struct block *next;
    size_t size;
    unsigned char bytes[];
};

static struct block *take_all(size_t size, struct block *list, int *count)
{
    for (;;) {
        struct block *block = malloc(size);
        if (!block) {
            CHECK(errno == ENOMEM);
            return list;
        }
        *block = (struct block){ list, size };
        memset(block->bytes, (int)(uintptr_t)block >> 4, size - sizeof *block);
        list = block;
        ++*count;
    }
}

static void check_all(const struct block *list)
{
    for (; list; list = list->next)
        for (size_t at = 0; at < list->size - sizeof *list; at++)
            CHECK(list->bytes[at] == (unsigned char)((int)(uintptr_t)list >> 4));
}

static void by_hand(void)
{
    uintptr_t end = end_of_memory();
    CHECK(__builtin_wasm_memory_grow(0, 3) * (uintptr_t)WASM_PAGE == end);
    CHECK(end_of_memory() == end + 3 * WASM_PAGE && (uintptr_t)sbrk(0) == end_of_memory());
    char *fresh = (char *)end;
    for (int at = 0; at < 3 * WASM_PAGE; at++)
        CHECK(fresh[at] == 0);
    memset(fresh, 'g', 3 * WASM_PAGE);
    char *wall = wall_at(end + 5 * WASM_PAGE, PAGE);
    CHECK(__builtin_wasm_memory_grow(0, 3) == SIZE_MAX);
    CHECK(end_of_memory() == end + 3 * WASM_PAGE);
    check_wall(wall, PAGE);
    CHECK(munmap(wall, PAGE) == 0);
    CHECK(__builtin_wasm_memory_grow(0, 3) != SIZE_MAX);
    CHECK(__builtin_wasm_memory_grow(0, 65536) == SIZE_MAX && __builtin_wasm_memory_grow(0, SIZE_MAX) == SIZE_MAX);
    CHECK(__builtin_wasm_memory_grow(0, 0) * (uintptr_t)WASM_PAGE == end + 6 * WASM_PAGE);
    /* A break that is no multiple of Wasm's page: what is grown begins at the next one. */
    CHECK(sbrk(10) == (void *)(end + 6 * WASM_PAGE));
    CHECK(end_of_memory() == end + 7 * WASM_PAGE);
    CHECK(__builtin_wasm_memory_grow(0, 1) * (uintptr_t)WASM_PAGE == end + 7 * WASM_PAGE);
    memset((char *)end + 7 * WASM_PAGE, 1, WASM_PAGE);
    CHECK(sbrk(0) == (void *)(end + 8 * WASM_PAGE));
    puts("memory.grow moves the break, and stops before a neighbour");
}

int main(void)
{
    /* The break moves before malloc is called for the first time: what is the program's stays so. */
    char *own = sbrk(3 * PAGE + 12);
    CHECK(own != (void *)-1);
    memset(own, 'o', 3 * PAGE + 12);
    by_hand();

    int count = 0;
    char *wall = wall_at(end_of_memory() + 16 * WASM_PAGE, 3 * PAGE);
    struct block *list = take_all(100000, NULL, &count);
    CHECK(count > 5 && count < 16);
    struct block *small = take_all(100, list, &count);
    CHECK(small != list && allocate(10000) == NULL);
    check_wall(wall, 3 * PAGE);
    check_all(small);
    puts("a heap is full at its neighbour");

    /* Room behind the neighbour is not the heap's; freed blocks are. */
    struct block *rest = small->next;
    free(small);
    void *again = allocate(80);
    CHECK(again != NULL);
    memset(again, 7, 80);
    check_all(rest);
    CHECK(munmap(wall, 3 * PAGE) == 0);
    int more = 0;
    char *far = wall_at(end_of_memory() + 64 * WASM_PAGE, PAGE);
    struct block *last = take_all(300000, rest, &more);
    CHECK(more > 0);
    check_all(last);
    check_wall(far, PAGE);
    puts("it goes on when the neighbour has gone");

    /* The neighbour of a heap that has holes: what was mapped into it is not given out. */
    CHECK(munmap(far, PAGE) == 0);
    uintptr_t end = end_of_memory();
    CHECK(sbrk(WASM_PAGE) == (void *)end);
    memset((char *)end, 'm', WASM_PAGE);
    char *large = allocate(40 * WASM_PAGE);
    CHECK(large != NULL && (large >= (char *)end + WASM_PAGE || large + 40 * WASM_PAGE <= (char *)end));
    memset(large, 'l', 40 * WASM_PAGE);
    for (int at = 0; at < WASM_PAGE; at++)
        CHECK(((char *)end)[at] == 'm');
    for (int at = 0; at < 3 * PAGE + 12; at++)
        CHECK(own[at] == 'o');
    check_all(last);
    puts("what the program has taken from the break stays its own");

    /* The size of a memory of 4 GiB would be 0 in bytes, and a heap would believe it. */
    CHECK(brk((void *)(UINTPTR_MAX - 3 * PAGE + 1)) == 0);
    CHECK(end_of_memory() > (uintptr_t)large && __builtin_wasm_memory_grow(0, 1) == SIZE_MAX);
    for (void *block; (block = allocate(100000));)
        memset(block, 1, 100000);
    CHECK(errno == ENOMEM);
    check_all(last);
    puts("a heap is full at the end of all addresses");
    return 0;
}
