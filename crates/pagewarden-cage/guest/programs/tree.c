/* Trees of processes: numbers, parents, the order of waiting, and what each ended with. */
#include "processes.h"
#include <sched.h>

enum { DEPTH = 5, BREADTH = 3, SEEN_MAX = 4096 };

static struct shared {
    volatile int count;
    pid_t seen[SEEN_MAX];
    volatile int gate;
    volatile int parent_of_orphan;
} *shared;

/* A node writes itself down and makes its children one after the other, so that nobody else writes meanwhile. */
static int grow(int depth)
{
    shared->seen[shared->count++] = getpid();
    int nodes = 1;
    for (int i = 0; depth > 0 && i < BREADTH; i++) {
        pid_t self = getpid(), child = clean_fork();
        if (child == 0) {
            CHECK(getppid() == self && getpid() != self);
            _exit(grow(depth - 1) % 256);
        }
        int status;
        CHECK(wait(&status) == child && WIFEXITED(status));
        nodes += WEXITSTATUS(status);
    }
    return nodes;
}

static void deep(void)
{
    /* A chain: each waits for its child and adds one. */
    pid_t child = clean_fork();
    if (child != 0) {
        printf("a chain of 20: %s\n", end_of(child));
        return;
    }
    for (int depth = 1; depth < 20; depth++) {
        child = clean_fork();
        if (child != 0) {
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            _exit(WEXITSTATUS(status) + 1);
        }
    }
    _exit(1);
}

static void many_at_once(void)
{
    enum { COUNT = 30 };
    pid_t children[COUNT];
    shared->gate = 0;
    for (int i = 0; i < COUNT; i++)
        if ((children[i] = clean_fork()) == 0) {
            while (!shared->gate)
                sched_yield();
            _exit(i);
        }
    int status;
    CHECK(waitpid(-1, &status, WNOHANG) == 0);
    CHECK(waitpid(children[7], &status, WNOHANG) == 0);
    shared->gate = 1;
    for (int i = COUNT - 1; i >= 0; i--) {
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
    }
    CHECK(wait(&status) == -1);
    printf("%d at once, then %s\n", COUNT, error_name());
    CHECK(waitpid(children[0], &status, 0) == -1 && errno == ECHILD);
    CHECK(waitpid(getpid(), &status, WNOHANG) == -1 && errno == ECHILD);
}

static void ends(void)
{
    static volatile int zero;
    volatile int *volatile nothing = NULL;
    static const char *const names[] = { "exit 0", "exit 300", "exit(7)", "NULL", "division", "trap", "read-only" };
    for (int which = 0; which < 7; which++) {
        pid_t child = clean_fork();
        if (child == 0) {
            switch (which) {
            case 0: _exit(0);
            case 1: _exit(300);
            case 2: exit(7);
            case 3: *nothing = 1; break;
            case 4: zero = 100 / zero; break;
            case 5: __builtin_trap();
            case 6: *(volatile int *)map_some(PAGE, PROT_READ, MAP_PRIVATE) = 1; break;
            }
            _exit(99);
        }
        printf("%-10s %s\n", names[which], end_of(child));
    }
}

static void orphans(void)
{
    pid_t child = clean_fork();
    if (child == 0) {
        pid_t between = getpid();
        if (clean_fork() == 0) {
            while (getppid() == between)
                sched_yield();
            shared->parent_of_orphan = getppid();
            _exit(5);
        }
        _exit(4);
    }
    printf("its parent: %s\n", end_of(child));
    while (!shared->parent_of_orphan)
        sched_yield();
    CHECK(shared->parent_of_orphan != child);
    puts("an orphan gets another parent");
}

int main(void)
{
    int status;
    shared = map_some(sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK(wait(&status) == -1);
    printf("no child: %s\n", error_name());
    CHECK(getpid() > 0 && getppid() >= 0);

    pid_t child = clean_fork();
    if (child == 0)
        _exit(grow(DEPTH - 1));
    printf("a tree, each with %d children: %s\n", BREADTH, end_of(child));
    for (int i = 0; i < shared->count; i++)
        for (int j = 0; j < i; j++)
            CHECK(shared->seen[i] != shared->seen[j]);
    printf("%d processes, each with a number of its own\n", shared->count);

    deep();
    many_at_once();
    ends();
    orphans();
    return 0;
}
