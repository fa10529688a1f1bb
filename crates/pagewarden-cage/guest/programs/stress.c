/* Random memory calls of several processes at once, which fork while they are at it. Each keeps books on what its pages must
   hold, and looks. */
#define _GNU_SOURCE
#include "processes.h"

enum { SLOTS = 24, PAGES = 40, CHILDREN = 3, DEPTH = 3, STEPS = 600, SHARED = 64 };

/* A reservation of PAGES pages; what is expected of each page: -2 not mapped, -1 without rights, or the byte that it is full
   of. Read-only pages have `fixed`. */
static struct slot {
    unsigned char *base;
    int bytes[PAGES];
    unsigned char hidden[PAGES];
    unsigned char fixed[PAGES];
} slots[SLOTS];

static unsigned state, sum;
static volatile unsigned *shared;

static unsigned below(unsigned end)
{
    return next_number(&state) % end;
}

static void fill(struct slot *slot, int page, int byte)
{
    memset(slot->base + page * PAGE, byte, PAGE);
    slot->bytes[page] = byte;
}

static void look(const struct slot *slot, int page)
{
    if (slot->bytes[page] < 0)
        return;
    const unsigned char *bytes = slot->base + page * PAGE;
    unsigned at = below(PAGE);
    CHECK(bytes[0] == slot->bytes[page] && bytes[at] == slot->bytes[page] && bytes[PAGE - 1] == slot->bytes[page]);
    sum = sum * 31 + bytes[at];
}

static void map(struct slot *slot, int from, int count)
{
    void *at = slot->base + from * PAGE;
    CHECK(mmap(at, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    for (int page = from; page < from + count; page++)
        slot->bytes[page] = slot->fixed[page] = 0;
}

/* Leaves a reservation behind, so that nobody else gets the place. */
static void unmap(struct slot *slot, int from, int count)
{
    void *at = slot->base + from * PAGE;
    CHECK(munmap(at, count * PAGE) == 0);
    CHECK(mmap(at, count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at);
    for (int page = from; page < from + count; page++)
        slot->bytes[page] = -2;
}

static void protect(struct slot *slot, int from, int count, int prot)
{
    CHECK(mprotect(slot->base + from * PAGE, count * PAGE, prot) == 0);
    for (int page = from; page < from + count; page++) {
        int byte = slot->bytes[page];
        if (byte == -2)
            byte = 0;
        if (byte >= 0 && prot == PROT_NONE)
            slot->hidden[page] = (unsigned char)byte, byte = -1;
        else if (byte == -1 && prot != PROT_NONE)
            byte = slot->hidden[page];
        slot->bytes[page] = byte;
        slot->fixed[page] = prot == PROT_READ;
    }
}

static void forget(struct slot *slot, int from, int count)
{
    CHECK(madvise(slot->base + from * PAGE, count * PAGE, MADV_DONTNEED) == 0);
    for (int page = from; page < from + count; page++)
        if (slot->bytes[page] >= 0)
            slot->bytes[page] = 0;
        else if (slot->bytes[page] == -1)
            slot->hidden[page] = 0;
}

/* Two slots change places, by way of a third place. */
static void exchange(struct slot *left, struct slot *right)
{
    unsigned char *room = map_some(PAGES * PAGE, PROT_NONE, MAP_PRIVATE);
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    for (int page = 0; page < PAGES; page++) {
        size_t at = (size_t)page * PAGE;
        CHECK(mremap(left->base + at, PAGE, PAGE, flags, room + at) == room + at);
        CHECK(mremap(right->base + at, PAGE, PAGE, flags, left->base + at) == left->base + at);
        CHECK(mremap(room + at, PAGE, PAGE, flags, right->base + at) == right->base + at);
    }
    struct slot between = *left;
    unsigned char *left_base = left->base, *right_base = right->base;
    *left = *right;
    *right = between;
    left->base = left_base;
    right->base = right_base;
}

static void step(void)
{
    struct slot *slot = &slots[below(SLOTS)];
    int from = (int)below(PAGES), count = 1 + (int)below(PAGES - (unsigned)from);
    unsigned kind = below(100);
    if (kind < 40) {
        for (int page = from; page < from + count; page++)
            if (slot->bytes[page] >= 0 && !slot->fixed[page])
                fill(slot, page, (int)below(256));
    } else if (kind < 65) {
        for (int page = from; page < from + count; page++)
            look(slot, page);
    } else if (kind < 73) {
        map(slot, from, count);
    } else if (kind < 78) {
        unmap(slot, from, count);
    } else if (kind < 92) {
        static const int rights[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE };
        protect(slot, from, count, rights[below(4)]);
    } else if (kind < 98) {
        forget(slot, from, count);
    } else if (slot != &slots[0]) {
        exchange(slot, &slots[0]);
    }
}

/* Each process has a word of its own in the shared pages, a page for each, and nobody else writes there. */
static void publish(int number, unsigned word)
{
    shared[(unsigned)number * (PAGE / 4) % (SHARED * PAGE / 4) + (unsigned)number / SHARED] = word;
}

static int live(int number, int depth)
{
    pid_t children[CHILDREN];
    int count = 0;
    for (int at = 0; at < STEPS; at++) {
        step();
        if (depth > 0 && count < CHILDREN && at % (STEPS / CHILDREN) == STEPS / CHILDREN / 2) {
            children[count] = clean_fork();
            if (children[count] == 0) {
                state = state * 2654435761u + (unsigned)number * 977 + 1;
                sum = 0;
                _exit(live(number * CHILDREN + count + 1, depth - 1));
            }
            count++;
        }
    }
    for (int slot = 0; slot < SLOTS; slot++)
        for (int page = 0; page < PAGES; page++)
            look(&slots[slot], page);
    publish(number, sum);
    int all_well = 0;
    for (int child = 0; child < count; child++) {
        int status;
        CHECK(waitpid(children[child], &status, 0) == children[child]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            printf("child %d of process %d: status %x\n", child, number, (unsigned)status);
            all_well = 1;
        }
    }
    fflush(stdout);
    return all_well;
}

int main(int argc, char **argv)
{
    state = argc > 1 ? (unsigned)atoi(argv[1]) * 2 + 1 : 1;
    shared = map_some(SHARED * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    for (int slot = 0; slot < SLOTS; slot++) {
        slots[slot].base = map_some(PAGES * PAGE, PROT_NONE, MAP_PRIVATE);
        for (int page = 0; page < PAGES; page++)
            slots[slot].bytes[page] = -2;
    }
    int all_well = live(0, DEPTH);
    unsigned all = 0, processes = 0;
    for (int at = 0; at < SHARED * PAGE / 4; at++) {
        all = all * 31 + shared[at];
        processes += shared[at] != 0;
    }
    printf("%u processes, %08x\n", processes, all);
    return all_well;
}
