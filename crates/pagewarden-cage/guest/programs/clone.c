/* For cages alone: processes that begin in a function, of a program that the compiler's pass for fork has not seen. */
#include "check.h"
#include <pagewarden.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int data = 1;
static volatile int *shared;

static int leaf(int argument)
{
    shared[argument] = ++data * 100 + argument;
    return argument + 10;
}

static int branch(int argument)
{
    data += argument;
    int sum = 0, status;
    for (int i = 0; i < 3; i++) {
        pid_t child = pagewarden_clone(leaf, argument * 4 + i);
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == argument * 4 + i + 10);
        sum += shared[argument * 4 + i];
    }
    shared[40 + argument] = sum;
    return argument;
}

static int trap(int argument)
{
    volatile int *volatile nothing = (int *)argument;
    return *nothing;
}

int main(void)
{
    int status;
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pid_t children[4];
    for (int i = 0; i < 4; i++)
        children[i] = pagewarden_clone(branch, i);
    for (int i = 0; i < 4; i++) {
        CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == i);
        printf("%d ", shared[40 + i]);
    }
    printf("and %d here\n", data);
    pid_t child = pagewarden_clone(trap, 8);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CHECK(pagewarden_clone((int (*)(int))9999, 0) == -1);
    printf("no such function: %s\n", error_name());
    CHECK(wait(&status) == -1 && errno == ECHILD);
    return 0;
}
