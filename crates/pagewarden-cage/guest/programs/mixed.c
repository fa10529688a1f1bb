/* For cages alone: forks in children that began in a function, such children of forks, forks below pointers to functions and
   in what qsort calls, and as many processes as there may be. */
#include "processes.h"
#include <pagewarden.h>
#include <sched.h>

static int data = 1;
static volatile int *shared;

static int in_clone(int argument)
{
    volatile int local = argument * 2;
    data += argument;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        data += 100;
        local++;
        pid_t grandchild = fork();
        CHECK(grandchild >= 0);
        if (grandchild == 0)
            return local + data;
        int status;
        CHECK(wait(&status) == grandchild && WIFEXITED(status));
        shared[1] = WEXITSTATUS(status);
        return local;
    }
    int status;
    CHECK(wait(&status) == child && WIFEXITED(status));
    shared[0] = WEXITSTATUS(status);
    return local + data;
}

static int leaf(int argument)
{
    return data + argument;
}

/* Compares, and forks once while at it. */
static int compare(const void *left, const void *right)
{
    static int count;
    if (++count == 40) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child > 0)
            CHECK(waitpid(child, NULL, 0) == child);
        else
            data = 1000;
    }
    return *(const int *)left - *(const int *)right;
}

static void sorts(void)
{
    enum { COUNT = 100 };
    int numbers[COUNT];
    for (int i = 0; i < COUNT; i++)
        numbers[i] = i * 37 % COUNT;
    fflush(stdout);
    qsort(numbers, COUNT, sizeof *numbers, compare);
    for (int i = 0; i < COUNT; i++)
        CHECK(numbers[i] == i);
    printf("%s has sorted\n", data == 1000 ? "a child" : "its parent");
    if (data == 1000)
        exit(0);
}

/* At most 16 at once, this one included. */
static void crowd(void)
{
    int count = 0;
    shared[2] = 0;
    for (;;) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            while (!shared[2])
                sched_yield();
            _exit(0);
        }
        if (child < 0)
            break;
        CHECK(++count < 100);
    }
    printf("the %dth child: %s; ", count + 1, error_name());
    CHECK(pagewarden_clone(leaf, 1) == -1 && errno == EAGAIN);
    shared[2] = 1;
    for (int i = 0; i < count; i++)
        CHECK(wait(NULL) > 0);
    pid_t child = clean_fork();
    if (child == 0)
        _exit(6);
    printf("and when they have gone: %s\n", end_of(child));
}

int main(void)
{
    shared = map_some(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    printf("forks in a clone: %s, ", end_of(pagewarden_clone(in_clone, 5)));
    printf("%d, %d\n", shared[0], shared[1]);
    pid_t child = clean_fork();
    if (child == 0) {
        data = 7;
        int status;
        pid_t grandchild = pagewarden_clone(leaf, 3);
        CHECK(waitpid(grandchild, &status, 0) == grandchild);
        data = 0;
        _exit(WEXITSTATUS(status) * 10);
    }
    printf("a clone in a fork: %s\n", end_of(child));
    sorts();
    crowd();
    return 0;
}
