/* Threads that allocate, resize, check and free blocks of all sizes, small to mapped; each has its own sums. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, SLOTS = 64, STEPS = 4000 };

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void check(const unsigned char *block, size_t size, unsigned char mark)
{
    if (block[0] != mark || block[size - 1] != mark) {
        fprintf(stderr, "a block has lost its contents\n");
        abort();
    }
}

static void *churn(void *argument)
{
    uint64_t state = 17 + (uintptr_t)argument, sum = 0;
    unsigned char *slots[SLOTS] = { 0 };
    size_t sizes[SLOTS] = { 0 };
    for (int step = 0; step < STEPS; step++) {
        size_t slot = next(&state) % SLOTS;
        size_t size = 1 + (next(&state) % 100 < 3 ? next(&state) % (1 << 20) : next(&state) % 4096);
        unsigned char mark = (unsigned char)(slot + 1);
        if (slots[slot])
            check(slots[slot], sizes[slot], mark);
        if (next(&state) % 3 == 0) {
            free(slots[slot]);
            slots[slot] = NULL;
            continue;
        }
        slots[slot] = realloc(slots[slot], size);
        if (!slots[slot])
            abort();
        memset(slots[slot], mark, size);
        sizes[slot] = size;
        sum += size;
    }
    for (int slot = 0; slot < SLOTS; slot++)
        free(slots[slot]);
    return (void *)(uintptr_t)sum;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, churn, (void *)i))
            abort();
    for (int i = 0; i < THREADS; i++) {
        void *sum;
        pthread_join(threads[i], &sum);
        printf("thread %d churned %ju bytes\n", i, (uintmax_t)(uintptr_t)sum);
    }
    return 0;
}
