/* Forks of every kind while other threads map memory, a deep stack, and exec with a large argument list. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKERS = 4, FORKS = 25, ARGUMENTS = 4000 };

static atomic_int done;
extern char **environ;

static char *map(size_t size)
{
    char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        abort();
    return block;
}

static void *churn(void *unused)
{
    while (!done) {
        char *block = map(1 << 16);
        memset(block, 1, 1 << 16);
        munmap(block, 1 << 16);
    }
    return unused;
}

static int status_of(pid_t child)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        abort();
    return WEXITSTATUS(status);
}

/* Each child sees the memory of its parent as it was, and changes only its own. */
static void *fork_often(void *number)
{
    long sum = 0;
    char *block = map(1 << 20);
    for (int i = 0; i < FORKS; i++) {
        block[5000] = (char)i;
        pid_t child = fork();
        if (child == 0) {
            char *own = map(1 << 16);
            own[0] = block[5000];
            block[5000] = 99;
            _exit(own[0]);
        }
        sum += status_of(child);
        if (block[5000] != i)
            abort();
    }
    (void)number;
    return (void *)sum;
}

static long deepen(int depth)
{
    volatile char frame[8000];
    frame[0] = (char)depth;
    if (depth % 50 == 0)
        munmap(map(4096), 4096);
    return depth ? deepen(depth - 1) + frame[0] - (char)depth : 0;
}

static int in_shared_memory(void *word)
{
    *(int *)word = 17;
    return 3;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        printf("exec with %d arguments, the last is %s\n", argc, argv[argc - 1]);
        return 0;
    }
    pthread_t churners[2], forkers[FORKERS];
    for (int i = 0; i < 2; i++)
        pthread_create(&churners[i], NULL, churn, NULL);
    for (long i = 0; i < FORKERS; i++)
        pthread_create(&forkers[i], NULL, fork_often, (void *)i);
    for (int i = 0; i < FORKERS; i++) {
        void *sum;
        pthread_join(forkers[i], &sum);
        printf("forker %d: %ld\n", i, (long)sum);
    }
    done = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(churners[i], NULL);

    printf("6 MiB deep: %ld\n", deepen(6 * 1024 * 1024 / 8100));

    pid_t child = vfork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 6", (char *)NULL);
        _exit(127);
    }
    printf("vfork: %d\n", status_of(child));

    char *spawned[] = { "sh", "-c", "exit 8", NULL };
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, spawned, environ))
        abort();
    printf("spawn: %d\n", status_of(child));

    int word = 0;
    char *stack = map(1 << 16);
    child = clone(in_shared_memory, stack + (1 << 16), CLONE_VM | SIGCHLD, &word);
    int status = status_of(child);
    printf("a process that shares memory: %d, wrote %d\n", status, word);
    fflush(stdout);

    char *many[ARGUMENTS + 2] = { "forks" };
    for (int i = 1; i <= ARGUMENTS; i++)
        if (asprintf(&many[i], "argument number %d, long enough to fill some pages", i) < 0)
            abort();
    execv("/proc/self/exe", many);
    return 1;
}
