/* Guests that look for a way past the manager, or die at the worst moment. Exit status 0: it went as it should. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static int is_refused(const char *path, int flags) {
    errno = 0;
    return open(path, flags) == -1 && errno == EACCES;
}

/* The mem file by several names; files that only look like it stay open to all. */
static int memory_file(void) {
    if (!is_refused("/proc/self/mem", O_RDWR) || !is_refused("/proc/thread-self/mem", O_WRONLY)) return 1;
    if (chdir("/proc/self/task") || !is_refused("../mem", O_RDWR)) return 2;
    int folder = open("/proc/self", O_RDONLY | O_DIRECTORY);
    if (openat(folder, "mem", O_WRONLY) != -1 || errno != EACCES) return 3;
    if (open("/proc/self/mem", O_RDONLY) < 0) return 4;
    if (open("/proc/self/oom_score_adj", O_WRONLY) < 0) return 5;
    if (open("/nowhere/mem", O_WRONLY) != -1 || errno != ENOENT) return 6;
    return 0;
}

static void *pause_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

/* The check comes after the host's own opening, which another thread could be ahead of. */
static int memory_file_by_link(const char *link) {
    if (symlink("/proc/self/mem", link)) return 1;
    int next = dup(0);
    close(next);
    if (!is_refused(link, O_RDWR) || dup(0) != next) return 2;
    pthread_t thread;
    pthread_create(&thread, 0, pause_for_ever, 0);
    open(link, O_RDWR);
    return 3; /* not reached */
}

static int other_namespace(void) {
    if (unshare(CLONE_NEWIPC)) return 0; /* not allowed to leave: nothing to show */
    return shmget(IPC_PRIVATE, PAGE, 0600 | IPC_CREAT) == -1 && errno == ENOSYS ? 0 : 1;
}

static void *map_for_ever(void *unused) {
    for (;;) {
        void *at = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(at, 2 * PAGE);
    }
    return unused;
}

/* Processes that are killed in the middle of their calls. */
static int killed_in_calls(void) {
    for (int round = 0; round < 30; round++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            for (int i = 0; i < 3; i++) pthread_create(&thread, 0, map_for_ever, 0);
            map_for_ever(0);
        }
        usleep(2000 + rand() % 8000);
        kill(child, SIGKILL);
        int status;
        if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) return 1;
    }
    return 0;
}

/* Processes that are killed while they fork. */
static int killed_in_forks(void) {
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();
        if (child == -1) return 1;
        while (child == 0) {
            pid_t grandchild = fork();
            if (grandchild == 0) _exit(0);
            waitpid(grandchild, 0, 0);
        }
        usleep(rand() % 3000);
        kill(child, SIGKILL);
        if (waitpid(child, 0, 0) != child) return 2;
    }
    return 0;
}

static _Atomic long *turns;
static volatile int ordered;
static void count(int signal) { ordered += signal > 0; }

/* Whether the process with the turns gets on; one that does not within five seconds is killed. */
static int gets_on(pid_t pid) {
    long before = *turns;
    for (int i = 0; i < 50000; i++) {
        if (*turns != before) return 1;
        usleep(100);
    }
    kill(pid, SIGKILL);
    return 0;
}

/* Calls of many host calls each, under signals that queue, stops, and continues soon after. Each queued signal
   arrives once, and after each continue the calls go on. */
static int signals_in_calls(void) {
    enum { SIGNALS = 500 };
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN + 3, &action, 0);
    turns = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid();
    char *area = mmap(0, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < SIGNALS; i++) {
            kill(parent, SIGRTMIN + 3);
            kill(parent, SIGSTOP);
            for (int spin = rand() % 400000; spin > 0; spin--) atomic_signal_fence(memory_order_seq_cst);
            kill(parent, SIGCONT);
            if (!gets_on(parent)) break;
        }
        _exit(0);
    }
    for (; waitpid(child, 0, WNOHANG) != child; ++*turns) {
        for (int page = 0; page < 64; page += 16)
            if (mprotect(area + page * PAGE, 4 * PAGE, PROT_READ | (page & 16 ? PROT_WRITE : 0))) return 1;
        if (mprotect(area, 64 * PAGE, PROT_READ | PROT_WRITE)) return 2;
        area[5 * PAGE]++;
        if (mprotect(area, 64 * PAGE, PROT_NONE)) return 3;
    }
    return ordered == SIGNALS ? 0 : 4;
}

static void *protect_for_ever(void *unused) {
    char *area = mmap(0, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;; ++*turns) {
        for (int page = 0; page < 64; page += 8) mprotect(area + page * PAGE, PAGE, PROT_READ);
        mprotect(area, 64 * PAGE, PROT_READ | PROT_WRITE);
        mprotect(area, 64 * PAGE, PROT_NONE);
    }
    return unused;
}

/* Stops in the middle of calls of many host calls each: a parent sees every one, and then nothing moves. */
static int stops_in_calls(void) {
    turns = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        pthread_create(&thread, 0, protect_for_ever, 0);
        protect_for_ever(0);
    }
    alarm(20); /* a stop that got lost would be waited for without end */
    for (int round = 0; round < 100; round++) {
        int status;
        usleep(rand() % 3000);
        kill(child, SIGSTOP);
        if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) return 1;
        usleep(1000);
        long before = *turns;
        usleep(2000);
        if (*turns != before) return 2;
        kill(child, SIGCONT);
        if (waitpid(child, &status, WCONTINUED) != child || !WIFCONTINUED(status)) return 3;
    }
    kill(child, SIGKILL);
    return waitpid(child, 0, 0) == child ? 0 : 4;
}

int main(int argc, char **argv) {
    if (argc < 2) return 99;
    if (!strcmp(argv[1], "memory_file")) return memory_file();
    if (!strcmp(argv[1], "memory_file_by_link")) return memory_file_by_link(argv[2]);
    if (!strcmp(argv[1], "other_namespace")) return other_namespace();
    if (!strcmp(argv[1], "killed_in_calls")) return killed_in_calls();
    if (!strcmp(argv[1], "killed_in_forks")) return killed_in_forks();
    if (!strcmp(argv[1], "signals_in_calls")) return signals_in_calls();
    if (!strcmp(argv[1], "stops_in_calls")) return stops_in_calls();
    return 98;
}
