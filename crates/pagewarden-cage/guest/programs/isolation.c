/* After a fork each has its own: data, heap, stack and maps, written by either side, over several generations. */
#include "processes.h"

enum { PAGES = 700 };

static int data = 1, bss;
static volatile char *heap, *map;

/* What this process sees, in a number. */
static unsigned sight(const volatile char *stack)
{
    unsigned sum = data * 7 + bss * 11 + (unsigned)stack[0] * 13;
    for (int page = 0; page < PAGES; page++) {
        sum = sum * 31 + (unsigned char)heap[page * PAGE + 5];
        sum = sum * 31 + (unsigned char)map[page * PAGE + page % PAGE];
    }
    return sum;
}

static void change(volatile char *stack, int by, int step)
{
    data += by;
    bss += by;
    stack[0] += by;
    for (int page = 0; page < PAGES; page += step) {
        heap[page * PAGE + 5] += by;
        map[page * PAGE + page % PAGE] += by;
    }
}

static void generation(int depth, volatile char *stack, volatile unsigned *seen)
{
    unsigned before = sight(stack);
    pid_t child = clean_fork();
    if (child == 0) {
        CHECK(sight(stack) == before);
        change(stack, 1 + depth, 1 + depth % 3);
        unsigned own = sight(stack);
        CHECK(own != before);
        if (depth > 0)
            generation(depth - 1, stack, seen);
        /* What its own children did is nothing to it. */
        if (depth == 0)
            CHECK(sight(stack) == own);
        seen[depth] = sight(stack);
        fflush(stdout);
        _exit(20 + depth);
    }
    /* The parent writes while the child reads. */
    change(stack, 3, 2);
    unsigned changed = sight(stack);
    printf("depth %d: %s\n", depth, end_of(child));
    CHECK(sight(stack) == changed);
}

/* Each of many children finds the state of the moment of its fork. */
static void snapshots(volatile char *stack)
{
    enum { COUNT = 12 };
    pid_t children[COUNT];
    volatile int *gate = map_some(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    for (int i = 0; i < COUNT; i++) {
        change(stack, 1, 7);
        unsigned now = sight(stack);
        if ((children[i] = clean_fork()) == 0) {
            while (!*gate)
                usleep(1000);
            _exit(sight(stack) == now ? i : 100);
        }
    }
    change(stack, 5, 1);
    *gate = 1;
    for (int i = 0; i < COUNT; i++)
        printf("%s ", end_of(children[i]));
    puts("are the snapshots");
}

int main(void)
{
    volatile char stack[64];
    memset((char *)stack, 0, sizeof stack);
    heap = malloc(PAGES * PAGE);
    map = map_some(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    volatile unsigned *seen = map_some(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK(heap != NULL);
    memset((char *)heap, 1, PAGES * PAGE);
    generation(6, stack, seen);
    for (int depth = 6; depth >= 0; depth--)
        printf("%08x ", seen[depth]);
    printf("and %08x\n", sight(stack));
    snapshots(stack);
    return 0;
}
