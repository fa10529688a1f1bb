/* Nanoseconds for each round of one call that is no memory call, or of two that are; "filtered-getppid" first
   installs a seccomp filter that allows everything, which is the least that any filter costs. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void map_and_unmap(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || munmap(page, 4096))
        abort();
}

static void allow_everything(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        abort();
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long rounds = atol(argv[2]);
    int maps = strcmp(argv[1], "map") == 0;
    if (strncmp(argv[1], "filtered-", 9) == 0)
        allow_everything();
    double start = now();
    for (long i = 0; i < rounds; i++) {
        if (maps)
            map_and_unmap();
        else
            getppid();
    }
    printf("%.1f\n", (now() - start) / rounds);
    return 0;
}
