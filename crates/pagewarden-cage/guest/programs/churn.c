/* A heap under load: blocks of all sizes come, grow, shrink and go; each keeps what was written into it. */
#include "check.h"

enum { BLOCKS = 2000, ROUNDS = 200000 };

static struct {
    unsigned char *bytes;
    size_t size;
    unsigned char seed;
} blocks[BLOCKS];
static unsigned long long sum;

static size_t some_size(unsigned *state)
{
    unsigned kind = next_number(state) % 1000;
    if (kind < 900)
        return next_number(state) % 300;
    return kind < 998 ? next_number(state) % 20000 : next_number(state) % 1500000;
}

/* Large blocks at some places only: every page, and both ends. */
static void write_from(int number, size_t from)
{
    size_t size = blocks[number].size;
    for (size_t at = from; at < size; at += at < 64 || size < 512 ? 1 : 509)
        blocks[number].bytes[at] = (unsigned char)(blocks[number].seed + at);
    if (size > 0)
        blocks[number].bytes[size - 1] = (unsigned char)(blocks[number].seed + size - 1);
}

static void check_until(int number, size_t end)
{
    for (size_t at = 0; at < end; at += at < 64 || end < 512 ? 1 : 509) {
        size_t size = blocks[number].size;
        if (size >= 512 && at >= 64 && (at - 64) % 509 != 0)
            continue;
        CHECK(blocks[number].bytes[at] == (unsigned char)(blocks[number].seed + at));
        sum = sum * 31 + blocks[number].bytes[at];
    }
}

static void replace(int number, unsigned *state)
{
    check_until(number, blocks[number].size);
    free(blocks[number].bytes);
    size_t size = some_size(state);
    int zeroed = next_number(state) % 4 == 0;
    blocks[number].bytes = zeroed ? calloc(1, size) : malloc(size);
    CHECK(blocks[number].bytes != NULL || size == 0);
    for (size_t at = 0; zeroed && at < size; at++)
        CHECK(blocks[number].bytes[at] == 0);
    blocks[number].size = size;
    blocks[number].seed = (unsigned char)next_number(state);
    write_from(number, 0);
}

static void resize(int number, unsigned *state)
{
    size_t before = blocks[number].size, size = some_size(state) + 1;
    unsigned char *bytes = realloc(blocks[number].bytes, size);
    CHECK(bytes != NULL);
    for (size_t at = 0; at < 64 && at < before && at < size; at++)
        CHECK(bytes[at] == (unsigned char)(blocks[number].seed + at));
    blocks[number].bytes = bytes;
    blocks[number].size = size;
    write_from(number, 0);
}

int main(void)
{
    unsigned state = 2463534242u;
    for (int round = 0; round < ROUNDS; round++) {
        int number = next_number(&state) % BLOCKS;
        if (next_number(&state) % 5 == 0)
            resize(number, &state);
        else
            replace(number, &state);
    }
    for (int number = 0; number < BLOCKS; number++) {
        check_until(number, blocks[number].size);
        free(blocks[number].bytes);
    }
    printf("%d blocks replaced %d times: %016llx\n", BLOCKS, ROUNDS, sum);
    char *large = allocate(200 << 20);
    CHECK(large != NULL);
    large[0] = large[(200 << 20) - 1] = 1;
    free(large);
    printf("200 MiB came and went\n");
    return 0;
}
