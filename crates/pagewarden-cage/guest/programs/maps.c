/* Patterns of mmap, munmap, mprotect and mremap: what the calls return, and what the memory holds afterwards. */
#define _GNU_SOURCE
#include "check.h"
#include <stdint.h>
#include <sys/mman.h>

enum { READ_WRITE = PROT_READ | PROT_WRITE, PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS };

static char *base;

/* A result: an address from `base` on, a value, or an error. */
static void say(const char *what, void *result)
{
    if (result == MAP_FAILED)
        printf("%-44s %s\n", what, error_name());
    else
        printf("%-44s page %ld\n", what, (long)((char *)result - base) / PAGE);
}

static void say_done(const char *what, int result)
{
    printf("%-44s %s\n", what, result == 0 ? "done" : error_name());
}

static char *map(size_t pages)
{
    char *block = mmap(NULL, pages * PAGE, READ_WRITE, PRIVATE, -1, 0);
    CHECK(block != MAP_FAILED);
    return block;
}

static void fill(char *from, int pages, char first)
{
    for (int page = 0; page < pages; page++)
        memset(from + page * PAGE, first + page, PAGE);
}

/* The first byte of each page, after a look at all others. */
static void contents(const char *what, const char *from, int pages)
{
    printf("%-44s ", what);
    for (int page = 0; page < pages; page++) {
        const char *bytes = from + page * PAGE;
        for (int at = 1; at < PAGE; at++)
            CHECK(bytes[at] == bytes[0]);
        putchar(bytes[0] == 0 ? '-' : bytes[0]);
    }
    putchar('\n');
}

static void holes(void)
{
    base = map(16);
    contents("new memory is zero", base, 16);
    fill(base, 16, 'a');
    say_done("unmap pages 4 to 7", munmap(base + 4 * PAGE, 4 * PAGE));
    say_done("unmap them again", munmap(base + 4 * PAGE, 4 * PAGE));
    say("a hint that is free", mmap(base + 5 * PAGE, PAGE, READ_WRITE, PRIVATE, -1, 0));
    say("the same place, but nothing is replaced",
        mmap(base + 5 * PAGE, PAGE, READ_WRITE, PRIVATE | MAP_FIXED_NOREPLACE, -1, 0));
    say("a place that is free", mmap(base + 4 * PAGE, PAGE, READ_WRITE, PRIVATE | MAP_FIXED_NOREPLACE, -1, 0));
    say("a fixed place over all", mmap(base + 3 * PAGE, 6 * PAGE, READ_WRITE, PRIVATE | MAP_FIXED, -1, 0));
    contents("the rest is as it was", base, 16);
    say("length 0", mmap(NULL, 0, READ_WRITE, PRIVATE, -1, 0));
    say("neither shared nor private", mmap(NULL, PAGE, READ_WRITE, MAP_ANONYMOUS, -1, 0));
    say("a fixed place that is not aligned", mmap(base + 1, PAGE, READ_WRITE, PRIVATE | MAP_FIXED, -1, 0));
    say("no such file", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 77, 0));
    say_done("unmap from the middle of a page", munmap(base + 1, PAGE));
    say_done("unmap nothing", munmap(base, 0));
    say_done("unmap all", munmap(base, 16 * PAGE));
}

static void rights(void)
{
    base = map(8);
    fill(base, 8, 'A');
    say_done("make pages 2 and 3 read-only", mprotect(base + 2 * PAGE, 2 * PAGE, PROT_READ));
    say_done("close page 5", mprotect(base + 5 * PAGE, PAGE, PROT_NONE));
    contents("before it", base, 5);
    say_done("open all again", mprotect(base, 8 * PAGE, READ_WRITE));
    base[5 * PAGE] = 'F';
    contents("nothing was lost", base, 8);
    say_done("unmap page 4", munmap(base + 4 * PAGE, PAGE));
    say_done("change across the hole", mprotect(base, 8 * PAGE, PROT_READ));
    say_done("before it, again", mprotect(base, 4 * PAGE, READ_WRITE));
    base[0] = 'A';
    say_done("rights that do not exist", mprotect(base, PAGE, 64));
    say_done("from the middle of a page", mprotect(base + 8, PAGE, PROT_READ));
    say_done("unmap all", munmap(base, 8 * PAGE));
}

static void moves(void)
{
    base = map(32);
    say_done("make room", munmap(base + 4 * PAGE, 28 * PAGE));
    fill(base, 4, 'p');
    say("grow in place", mremap(base, 4 * PAGE, 8 * PAGE, 0));
    contents("with zeros behind", base, 8);
    say("put something behind it", mmap(base + 8 * PAGE, PAGE, READ_WRITE, PRIVATE | MAP_FIXED, -1, 0));
    say_done("of another kind", mprotect(base + 8 * PAGE, PAGE, PROT_READ));
    say("grow in place", mremap(base, 8 * PAGE, 9 * PAGE, 0));
    char *moved = mremap(base, 8 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && moved != base);
    contents("or elsewhere", moved, 12);
    say("back to a fixed place", mremap(moved, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, base));
    contents("with its pages", base, 4);
    contents("and what was behind", moved + 4 * PAGE, 4);
    say("shrink", mremap(base, 4 * PAGE, 2 * PAGE, 0));
    say("move what is not there", mremap(base + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    say("onto itself", mremap(base, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, base + PAGE));
    say("leave the old place empty", mremap(base, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | MREMAP_FIXED,
                                            base + 4 * PAGE));
    contents("it reads zeros", base, 2);
    contents("and the new one the pages", base + 4 * PAGE, 2);
    say_done("unmap all", munmap(base, 9 * PAGE));
    say_done("and the other", munmap(moved + 4 * PAGE, 60 * PAGE));
}

static void advice(void)
{
    unsigned char resident[6];
    base = map(6);
    fill(base, 5, '1');
    say_done("throw pages 1 and 2 away", madvise(base + PAGE, 2 * PAGE, MADV_DONTNEED));
    CHECK(mincore(base, 5 * PAGE, resident) == 0);
    for (int page = 0; page < 5; page++)
        printf("%d", resident[page] & 1);
    puts(" is what is resident");
    contents("they are zero", base, 6);
    say_done("fetch page 5 before it is used", madvise(base + 5 * PAGE, PAGE, MADV_POPULATE_WRITE));
    CHECK(mincore(base + 5 * PAGE, PAGE, resident) == 0 && (resident[0] & 1));
    say_done("an advice that does not exist", madvise(base, PAGE, 1000));
    say_done("advice for a hole", (munmap(base + 3 * PAGE, PAGE), madvise(base, 6 * PAGE, MADV_DONTNEED)));
    contents("is followed around it", base, 3);
    say_done("unmap all", munmap(base, 6 * PAGE));
    char *shared = mmap(NULL, 2 * PAGE, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    fill(shared, 2, 's');
    say_done("shared memory keeps what is thrown away", madvise(shared, 2 * PAGE, MADV_DONTNEED));
    contents("here", shared, 2);
    say_done("until it is removed", madvise(shared, PAGE, MADV_REMOVE));
    contents("here", shared, 2);
    say_done("write back", msync(shared, 2 * PAGE, MS_SYNC));
    say_done("both ways at once", msync(shared, PAGE, MS_SYNC | MS_ASYNC));
    say_done("unmap", munmap(shared, 2 * PAGE));
}

/* Many small maps, in an order that leaves holes and closes them again. */
static void many(void)
{
    enum { COUNT = 500 };
    static char *maps[COUNT];
    unsigned state = 99, sum = 0;
    for (int round = 0; round < 20; round++)
        for (int at = 0; at < COUNT; at++) {
            int number = (at * 7 + round) % COUNT;
            size_t pages = 1 + next_number(&state) % 5;
            if (maps[number]) {
                sum = sum * 31 + (unsigned char)maps[number][PAGE - 1];
                CHECK(munmap(maps[number], 5 * PAGE) == 0);
            }
            maps[number] = map(5);
            CHECK(munmap(maps[number] + pages * PAGE, (5 - pages) * PAGE) == 0 || pages == 5);
            memset(maps[number], (int)(number + round), pages * PAGE);
            CHECK(mmap(maps[number] + pages * PAGE, (5 - pages) * PAGE, PROT_NONE, PRIVATE | MAP_FIXED, -1, 0) !=
                      MAP_FAILED || pages == 5);
        }
    printf("%d maps, %08x\n", COUNT, sum);
}

int main(void)
{
    CHECK(sysconf(_SC_PAGESIZE) == PAGE && getpagesize() == PAGE);
    holes();
    rights();
    moves();
    advice();
    many();
    return 0;
}
