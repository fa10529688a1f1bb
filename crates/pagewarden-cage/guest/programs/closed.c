/* Memory without rights is memory: a fork carries it, and either side may open it. */
#include "processes.h"

int main(void)
{
    char *own = map_some(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    char *fresh = map_some(8 * PAGE, PROT_NONE, MAP_PRIVATE);
    char *shared = map_some(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    memset(own, 'o', 8 * PAGE);
    memset(shared, 's', 8 * PAGE);
    CHECK(mprotect(own + 2 * PAGE, 4 * PAGE, PROT_NONE) == 0);
    CHECK(mprotect(shared, 8 * PAGE, PROT_NONE) == 0);

    char *const closed[] = { own + 3 * PAGE, fresh, shared };
    for (int which = 0; which < 3; which++) {
        pid_t child = clean_fork();
        if (child == 0)
            _exit(*(volatile char *)closed[which]);
        printf("a child reads what is closed: %s\n", end_of(child));
    }
    pid_t child = clean_fork();
    if (child == 0) {
        CHECK(mprotect(own + 2 * PAGE, 4 * PAGE, PROT_READ) == 0);
        CHECK(mprotect(fresh, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
        CHECK(mprotect(shared, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
        CHECK(own[2 * PAGE] == 'o' && own[6 * PAGE - 1] == 'o' && fresh[5] == 0 && shared[8 * PAGE - 1] == 's');
        CHECK(mprotect(own + 2 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
        own[3 * PAGE] = 'c';
        fresh[5] = 'c';
        shared[3 * PAGE] = 'c';
        pid_t grandchild = clean_fork();
        if (grandchild == 0) {
            CHECK(own[3 * PAGE] == 'c' && fresh[5] == 'c');
            shared[4 * PAGE] = 'g';
            _exit(9);
        }
        printf("a grandchild: %s\n", end_of(grandchild));
        fflush(stdout);
        _exit(8);
    }
    printf("a child opens it: %s\n", end_of(child));
    CHECK(mprotect(own, 8 * PAGE, PROT_READ) == 0);
    CHECK(mprotect(fresh, 8 * PAGE, PROT_READ) == 0);
    CHECK(mprotect(shared, 8 * PAGE, PROT_READ) == 0);
    printf("the parent sees %c %d %c %c\n", own[3 * PAGE], fresh[5], shared[3 * PAGE], shared[4 * PAGE]);
    return 0;
}
