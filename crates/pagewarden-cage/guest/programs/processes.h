/* For programs that fork. */
#ifndef PROCESSES_H
#define PROCESSES_H
#include "check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* What becomes of a child, by words. */
static inline const char *end_of(pid_t child)
{
    static char text[40];
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status))
        snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "%s", WTERMSIG(status) == SIGSEGV  ? "SIGSEGV"
                                          : WTERMSIG(status) == SIGILL ? "SIGILL"
                                          : WTERMSIG(status) == SIGFPE ? "SIGFPE"
                                                                       : "another signal");
    else
        snprintf(text, sizeof text, "status %x", (unsigned)status);
    return text;
}

/* A fork with nothing left to print twice. */
static inline pid_t clean_fork(void)
{
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

static inline void *map_some(size_t bytes, int prot, int flags)
{
    void *block = mmap(NULL, bytes, prot, flags | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED);
    return block;
}
#endif
