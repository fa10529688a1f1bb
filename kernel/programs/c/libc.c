// A C program with the host's library, linked statically: what malloc and its like ask of memory.

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 256, ROUNDS = 20000, MEGABYTE = 1 << 20 };

static int failures;

static void check(const char *text, int holds) {
    if (holds)
        printf("ok  %s\n", text);
    else
        printf("FAILED  %s: it is not so\n", text);
    fflush(stdout);
    failures += !holds;
}

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct block {
    unsigned char *bytes;
    size_t length;
    unsigned char value;
};

static int is_intact(const struct block *block) {
    for (size_t at = 0; at < block->length; at += at + 1 < block->length ? 61 : 1)
        if (block->bytes[at] != block->value) return 0;
    return block->length == 0 || block->bytes[block->length - 1] == block->value;
}

// Most are small; each hundredth has a mapping of its own.
static size_t some_length(void) {
    uint64_t random = next_random();
    return random % 100 == 0 ? 130000 + random % 200000 : 1 + random % 2000;
}

static void churn(void) {
    static struct block blocks[BLOCKS];
    int intact = 1, given = 1;
    for (int round = 0; round < ROUNDS; round++) {
        struct block *block = &blocks[next_random() % BLOCKS];
        intact &= is_intact(block);
        free(block->bytes);
        block->length = some_length();
        block->value = (unsigned char)round;
        block->bytes = malloc(block->length);
        if (block->bytes == NULL) {
            given = 0;
            block->length = 0;
            continue;
        }
        memset(block->bytes, block->value, block->length);
    }
    for (int index = 0; index < BLOCKS; index++) {
        intact &= is_intact(&blocks[index]);
        free(blocks[index].bytes);
    }
    check("malloc gives 20000 blocks of many sizes", given);
    check("each block holds what it was filled with until it is freed", intact);
}

static void reallocations(void) {
    size_t length = MEGABYTE;
    unsigned char *bytes = malloc(length);
    int kept = bytes != NULL;
    for (size_t at = 0; kept && at < length; at++) bytes[at] = (unsigned char)(at * 31);
    for (size_t grown = 2 * length; kept && grown <= 8 * length; grown *= 2) {
        unsigned char *moved = realloc(bytes, grown);
        kept = moved != NULL;
        if (kept) bytes = moved;
    }
    for (size_t at = 0; kept && at < length; at++) kept = bytes[at] == (unsigned char)(at * 31);
    check("realloc of a large block keeps what it holds", kept);
    free(bytes);
    void *volatile none = malloc(SIZE_MAX / 4);
    check("malloc does not give more than there are addresses", none == NULL && errno == ENOMEM);
}

static void zeros(void) {
    int zero = 1;
    for (int round = 0; round < 64; round++) {
        size_t length = 1000 + (size_t)round * 4000;
        unsigned char *bytes = calloc(length, 1);
        for (size_t at = 0; at < length; at++) zero &= bytes[at] == 0;
        memset(bytes, 255, length);
        free(bytes);
    }
    check("calloc gives zeros where others were before", zero);
}

static void copies(void) {
    size_t length = 3 * MEGABYTE + 123;
    unsigned char *from = malloc(length), *to = malloc(length);
    int given = from != NULL && to != NULL;
    for (size_t at = 0; given && at < length; at++) from[at] = (unsigned char)next_random();
    if (given) memcpy(to, from, length);
    check("memcpy copies three megabytes", given && memcmp(to, from, length) == 0);
    if (given) memmove(to + 77, to, length - 77);
    check("memmove moves three megabytes by 77 bytes", given && memcmp(to + 77, from, length - 77) == 0);
    free(from);
    free(to);
}

static int by_value(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return a < b ? -1 : a > b;
}

static void sorting(void) {
    enum { COUNT = 20000 };
    uint64_t *words = malloc(COUNT * sizeof *words), before = 0, after = 0;
    for (int index = 0; index < COUNT; index++) before += words[index] = next_random();
    qsort(words, COUNT, sizeof *words, by_value);
    int sorted = 1;
    for (int index = 0; index < COUNT; index++) {
        after += words[index];
        sorted &= index == 0 || words[index - 1] <= words[index];
    }
    check("qsort sorts 20000 words", sorted && before == after);
    free(words);
}

static void texts(void) {
    char text[64];
    int length = snprintf(text, sizeof text, "%d %s %.3f %#x", -5, "pages", 2.0 / 3.0, 4096);
    check("printf knows text, floating-point and other numbers",
          length == 21 && strcmp(text, "-5 pages 0.667 0x1000") == 0);
}

static void mappings(void) {
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *heap = malloc(100);
    check("mmap through the library gives a page", shared != MAP_FAILED);
    strcpy(heap, "the parent's");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        strcpy(heap, "the child's");
        *shared = (int)strlen(heap);
        _exit(7);
    }
    int status = 0;
    check("waitpid finds the child", waitpid(child, &status, 0) == child);
    check("the library's child exited with 7", WIFEXITED(status) && WEXITSTATUS(status) == 7);
    check("the library's child had a copy of the heap", strcmp(heap, "the parent's") == 0);
    check("what the library's child stores to a shared page is seen", *shared == 11);
    check("munmap through the library takes it away", munmap(shared, 4096) == 0);
    check("munmap through the library says what is wrong with an address", munmap((char *)shared + 1, 4096) == -1 && errno == EINVAL);
    free(heap);
}

int main(int argc, char **argv) {
    check("main has one argument", argc == 1 && argv[0] != NULL && argv[1] == NULL);
    texts();
    churn();
    reallocations();
    zeros();
    copies();
    sorting();
    mappings();
    return failures != 0;
}
