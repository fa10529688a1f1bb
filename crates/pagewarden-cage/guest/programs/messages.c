/* Two processes that exchange messages through two rings in shared memory, each written by one side alone. */
#include "processes.h"
#include <sched.h>
#include <stdatomic.h>

enum { SLOTS = 64, WORDS = 14, MESSAGES = 20000 };

struct ring {
    /* How many messages were ever put in, and taken out. */
    _Atomic unsigned put, taken;
    struct {
        unsigned length;
        unsigned words[WORDS];
    } slots[SLOTS];
};

static void put(struct ring *ring, const unsigned *words, unsigned length)
{
    unsigned at = atomic_load_explicit(&ring->put, memory_order_relaxed);
    while (at - atomic_load_explicit(&ring->taken, memory_order_acquire) == SLOTS)
        sched_yield();
    ring->slots[at % SLOTS].length = length;
    memcpy(ring->slots[at % SLOTS].words, words, length * sizeof *words);
    atomic_store_explicit(&ring->put, at + 1, memory_order_release);
}

static unsigned take(struct ring *ring, unsigned *words)
{
    unsigned at = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    while (atomic_load_explicit(&ring->put, memory_order_acquire) == at)
        sched_yield();
    unsigned length = ring->slots[at % SLOTS].length;
    CHECK(length <= WORDS);
    memcpy(words, ring->slots[at % SLOTS].words, length * sizeof *words);
    atomic_store_explicit(&ring->taken, at + 1, memory_order_release);
    return length;
}

/* Answers each message with its words in reverse, until an empty one comes. */
static int serve(struct ring *requests, struct ring *answers)
{
    unsigned words[WORDS], answer[WORDS], length;
    int served = 0;
    while ((length = take(requests, words)) > 0) {
        for (unsigned i = 0; i < length; i++)
            answer[i] = words[length - 1 - i];
        put(answers, answer, length);
        served++;
    }
    return served;
}

int main(void)
{
    struct ring *rings = map_some(2 * sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED);
    pid_t child = clean_fork();
    if (child == 0)
        _exit(serve(&rings[0], &rings[1]) == MESSAGES ? 0 : 1);

    unsigned state = 7, expected = 7, sum = 0, words[WORDS];
    int sent = 0, received = 0;
    while (received < MESSAGES) {
        while (sent < MESSAGES && sent - received < SLOTS / 2) {
            unsigned length = 1 + next_number(&state) % WORDS;
            for (unsigned i = 0; i < length; i++)
                words[i] = next_number(&state);
            put(&rings[0], words, length);
            sent++;
        }
        unsigned length = take(&rings[1], words);
        CHECK(length == 1 + next_number(&expected) % WORDS);
        while (length-- > 0) {
            CHECK(words[length] == next_number(&expected));
            sum = sum * 31 + words[length];
        }
        received++;
    }
    put(&rings[0], words, 0);
    printf("%d messages there and back, %08x, ", received, sum);
    printf("the server: %s\n", end_of(child));
    return 0;
}
