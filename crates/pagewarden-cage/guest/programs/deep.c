/* Recursion, and forks far down in it: both processes come back up through all the frames. */
#include "processes.h"

static volatile int *forks;

/* Forks in the frames of these depths. The frames are of several sizes, and each checks that its own are as it left them. */
static unsigned down(int depth, int deepest, int *is_child)
{
    volatile unsigned frame[12];
    for (int i = 0; i < 12; i++)
        frame[i] = (unsigned)(depth * 31 + i);
    unsigned below = 1;
    if (depth == deepest || depth == deepest / 2) {
        pid_t child = clean_fork();
        if (child == 0)
            forks[0]++;
        else
            CHECK(waitpid(child, NULL, 0) == child);
        *is_child |= child == 0;
        below = child == 0 ? 1000 : 2000;
    }
    if (depth < deepest)
        below += down(depth + 1, deepest, is_child);
    unsigned sum = below;
    for (int i = 0; i < 12; i++) {
        CHECK(frame[i] == (unsigned)(depth * 31 + i));
        sum += frame[i] ^ (unsigned)i;
    }
    return sum;
}

static int factorial_like(int depth)
{
    volatile char frame[100];
    frame[depth % 100] = (char)depth;
    return depth == 0 ? 1 : factorial_like(depth - 1) + (frame[depth % 100] == (char)depth);
}

/* Through a pointer, which could be anything's. */
static int (*volatile indirect)(int) = factorial_like;

int main(void)
{
    forks = map_some(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    printf("40000 frames: %d\n", indirect(40000));
    int is_child = 0;
    unsigned sum = down(0, 3000, &is_child);
    printf("%s comes back with %u\n", is_child ? "a child" : "the first", sum);
    fflush(stdout);
    if (is_child)
        _exit(1);
    printf("%d forks\n", forks[0]);
    return 0;
}
