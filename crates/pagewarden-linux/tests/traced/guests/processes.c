/* Threads, children, other programs, and ends. */
#include "guest.h"
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>

extern char **environ;

static void *churn_forever(void *unused)
{
    (void)unused;
    for (;;) {
        char *map = mmap(NULL, 4 * PAGE, RW, PRIVATE, -1, 0);
        CHECK(map != MAP_FAILED);
        map[PAGE] = 1;
        CHECK(mprotect(map + PAGE, PAGE, PROT_READ) == 0);
        CHECK(mprotect(map, 4 * PAGE, RW) == 0);
        CHECK(munmap(map, 4 * PAGE) == 0);
    }
}

static void start_churn(int threads)
{
    pthread_t thread;
    for (int i = 0; i < threads; i++)
        CHECK(pthread_create(&thread, NULL, churn_forever, NULL) == 0);
}

static int hello(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *text = malloc(300000);
    CHECK(text);
    memset(text, 'x', 300000);
    free(text);
    say("hello\n");
    return 0;
}

static int exit_with(int argc, char **argv)
{
    CHECK(argc == 1);
    return atoi(argv[0]);
}

static int die_by(int argc, char **argv)
{
    CHECK(argc == 1);
    int number = atoi(argv[0]);
    signal(number, SIG_DFL);
    if (number == SIGSEGV)
        *(volatile int *)8 = 1;
    raise(number);
    return 0;
}

/* Killed while a thread is in a memory call, sooner or later. */
static int killed_in_call(int argc, char **argv)
{
    CHECK(argc == 1);
    start_churn(3);
    usleep((useconds_t)atoi(argv[0]));
    kill(getpid(), SIGKILL);
    return 0;
}

/* exit_group meets threads in the middle of calls. */
static int exit_in_call(int argc, char **argv)
{
    CHECK(argc == 1);
    start_churn(3);
    usleep((useconds_t)atoi(argv[0]));
    _exit(5);
}

/* The parent lives on, and its own memory is as it was. */
static int children_killed(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            start_churn(2);
            churn_forever(NULL);
        }
        usleep((useconds_t)(i * 397));
        CHECK(kill(child, SIGKILL) == 0);
        int status = status_of(child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    say("done\n");
    return 0;
}

static void *become_hello(void *unused)
{
    (void)unused;
    become("hello", NULL);
    CHECK(!"exec");
    return NULL;
}

static int exec_from_thread(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, become_hello, NULL) == 0);
    for (;;)
        pause();
}

static int exec_in_churn(int argc, char **argv)
{
    CHECK(argc == 2);
    start_churn(3);
    usleep((useconds_t)atoi(argv[0]));
    if (strcmp(argv[1], "leader") == 0)
        become_hello(NULL);
    return exec_from_thread(0, NULL);
}

/* An exec that fails leaves the program as it was. */
static int exec_fails(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    *map = 7;
    char *const arguments[] = { "x", NULL };
    CHECK(execve("/nowhere/at/all", arguments, environ) == -1 && errno == ENOENT);
    CHECK(execve("/", arguments, environ) == -1 && errno == EACCES);
    CHECK(*map == 7 && munmap(map, PAGE) == 0);
    say("done\n");
    return 0;
}

static int vfork_exec(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (volatile int i = 0; i < 10; i++) {
        pid_t child = vfork();
        CHECK(child >= 0);
        if (child == 0) {
            become("exit", "7");
            _exit(1);
        }
        void *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
        CHECK(map != MAP_FAILED && munmap(map, PAGE) == 0);
        int status = status_of(child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
    say("done\n");
    return 0;
}

static int spawn(int argc, char **argv)
{
    CHECK(argc == 1);
    for (int i = 0; i < 10; i++) {
        pid_t child;
        char *const arguments[] = { "guest", argv[0], "exit", "11", NULL };
        CHECK(posix_spawn(&child, "/proc/thread-self/exe", NULL, NULL, arguments, environ) == 0);
        int status = status_of(child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 11);
    }
    say("done\n");
    return 0;
}

static int clone3_process(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct clone_args arguments = { .exit_signal = SIGCHLD };
    char *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    *map = 1;
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    CHECK(child >= 0);
    if (child == 0) {
        *map = 2;
        CHECK(munmap(map, PAGE) == 0);
        _exit(13);
    }
    CHECK(WEXITSTATUS(status_of((pid_t)child)) == 13 && *map == 1);
    CHECK(munmap(map, PAGE) == 0);
    arguments.exit_signal = 1000;
    CHECK(syscall(SYS_clone3, &arguments, sizeof arguments) == -1 && errno == EINVAL);
    say("done\n");
    return 0;
}

static char *volatile shared_map;
static int map_for_parent(void *unused)
{
    (void)unused;
    shared_map = mmap(NULL, 2 * PAGE, RW, PRIVATE, -1, 0);
    if (shared_map == MAP_FAILED)
        _exit(1);
    shared_map[PAGE] = 42;
    _exit(17);
}

/* A process of its own that shares our memory. */
static int clone_vm(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int i = 0; i < 10; i++) {
        char *stack = mmap(NULL, 64 * 1024, RW, PRIVATE, -1, 0);
        CHECK(stack != MAP_FAILED);
        pid_t child = clone(map_for_parent, stack + 64 * 1024, CLONE_VM | SIGCHLD, NULL);
        CHECK(child > 0 && WEXITSTATUS(status_of(child)) == 17);
        CHECK(shared_map[PAGE] == 42);
        CHECK(munmap(shared_map, 2 * PAGE) == 0 && munmap(stack, 64 * 1024) == 0);
    }
    say("done\n");
    return 0;
}

static int fork_storm(int argc, char **argv)
{
    (void)argc, (void)argv;
    pid_t children[100];
    for (int i = 0; i < 100; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] != 0)
            continue;
        for (int j = 0; j < 5; j++) {
            size_t bytes = (size_t)(j + 1) * 100000;
            char *memory = malloc(bytes);
            CHECK(memory);
            memset(memory, i, bytes);
            CHECK(memory[bytes - 1] == (char)i);
            free(memory);
        }
        _exit(i);
    }
    for (int i = 0; i < 100; i++) {
        int status = status_of(children[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
    }
    say("done\n");
    return 0;
}

static void *churn(void *number)
{
    char mark = (char)(1 + (intptr_t)number);
    for (int i = 0; i < 100; i++) {
        size_t pages = 2 + (size_t)(i % 5);
        char *map = mmap(NULL, pages * PAGE, RW, PRIVATE, -1, 0);
        CHECK(map != MAP_FAILED);
        for (size_t page = 0; page < pages; page++) {
            CHECK(map[page * PAGE] == 0);
            map[page * PAGE] = mark;
        }
        CHECK(mprotect(map + PAGE, PAGE, PROT_READ) == 0);
        char *moved = mremap(map + PAGE, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
        CHECK(moved != MAP_FAILED && moved[0] == mark && map[0] == mark);
        CHECK(munmap(moved, 3 * PAGE) == 0 && munmap(map, PAGE) == 0);
        CHECK(pages < 3 || munmap(map + 2 * PAGE, (pages - 2) * PAGE) == 0);
        if (i % 10 == 0) {
            void *memory = malloc(200000);
            CHECK(memory);
            memset(memory, mark, 200000);
            free(memory);
        }
    }
    return NULL;
}

static int thread_churn(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[8];
    for (intptr_t i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, (void *)i) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    say("done\n");
    return 0;
}

/* Children are made while other threads change the space that is copied. */
static int fork_in_churn(int argc, char **argv)
{
    (void)argc, (void)argv;
    start_churn(2);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            void *map = mmap(NULL, 3 * PAGE, RW, PRIVATE, -1, 0);
            CHECK(map != MAP_FAILED && munmap(map, 3 * PAGE) == 0);
            _exit(i);
        }
        CHECK(WEXITSTATUS(status_of(child)) == i);
    }
    say("done\n");
    _exit(0);
}

/* A process is killed in the middle of making children; they are ours then. */
static int forker_killed(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(mmap(NULL, 20 * MIB, RW, PRIVATE, -1, 0) != MAP_FAILED);
            for (;;) {
                pid_t grandchild = i % 3 == 2 ? vfork() : fork();
                if (grandchild == 0 && i % 3 == 1) {
                    void *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
                    _exit(map == MAP_FAILED);
                }
                if (grandchild == 0)
                    _exit(0);
                waitpid(-1, NULL, WNOHANG);
            }
        }
        usleep((useconds_t)(3000 + i * 173));
        CHECK(kill(child, SIGKILL) == 0);
        int status;
        pid_t gone;
        while ((gone = wait(&status)) > 0)
            CHECK(gone == child ? WIFSIGNALED(status) : status == 0 || status == SIGKILL);
        CHECK(errno == ECHILD);
        /* Nothing is held for children that there are not. */
        void *map = mmap(NULL, 80 * MIB, RW, PRIVATE, -1, 0);
        CHECK(map != MAP_FAILED && munmap(map, 80 * MIB) == 0);
    }
    say("done\n");
    return 0;
}

static int use_shared_space(void *unused)
{
    (void)unused;
    long until = now_ms() + 60, start = syscall(SYS_brk, 0);
    while (now_ms() < until) {
        char *map = mmap(NULL, 3 * PAGE, RW, PRIVATE, -1, 0);
        if (map == MAP_FAILED || munmap(map, 3 * PAGE) != 0)
            _exit(1);
        if (syscall(SYS_brk, start + 3 * (long)PAGE) != start + 3 * (long)PAGE)
            _exit(2);
        ((volatile char *)start)[2 * PAGE] = 1;
        if (syscall(SYS_brk, 0) != start + 3 * (long)PAGE || syscall(SYS_brk, start) != start)
            _exit(3);
    }
    _exit(21);
}

/* A process dies in the middle of calls, and another goes on in the same space. */
static int sharer_survives(int argc, char **argv)
{
    (void)argc, (void)argv;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    volatile int *ready = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(ready != MAP_FAILED);
    for (int i = 0; i < 15; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            char *stack = mmap(NULL, 64 * 1024, RW, PRIVATE, -1, 0);
            CHECK(stack != MAP_FAILED);
            /* First, because it moves the break. */
            start_churn(1);
            CHECK(clone(use_shared_space, stack + 64 * 1024, CLONE_VM | SIGCHLD, NULL) > 0);
            *ready = i + 1;
            churn_forever(NULL);
        }
        while (*ready != i + 1)
            usleep(100);
        usleep((useconds_t)(1000 + i * 397));
        CHECK(kill(child, SIGKILL) == 0);
        int status, others = 0;
        pid_t gone;
        while ((gone = wait(&status)) > 0)
            if (gone != child) {
                if (!WIFEXITED(status) || WEXITSTATUS(status) != 21)
                    say("round %d: status %#x\n", i, status);
                others++;
            }
        CHECK(others == 1);
    }
    say("done\n");
    return 0;
}

static void *after_leader(void *then)
{
    sleep_ms(30);
    churn((void *)3);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        churn((void *)4);
        _exit(9);
    }
    CHECK(WEXITSTATUS(status_of(child)) == 9);
    child = vfork();
    if (child == 0) {
        become("exit", "8");
        _exit(1);
    }
    CHECK(WEXITSTATUS(status_of(child)) == 8);
    if (strcmp(then, "exec") == 0)
        become_hello(NULL);
    say("hello\n");
    return NULL;
}

/* The first thread ends, and the others go on. */
static int leader_ends(int argc, char **argv)
{
    CHECK(argc == 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, after_leader, argv[0]) == 0);
    pthread_exit(NULL);
}

static void *end_at_once(void *unused)
{
    return unused;
}

static void *make_threads(void *unused)
{
    pthread_t thread;
    for (int i = 0; i < 100; i++) {
        CHECK(pthread_create(&thread, NULL, end_at_once, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return unused;
}

static int short_threads(int argc, char **argv)
{
    (void)argc, (void)argv;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, make_threads, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    say("done\n");
    return 0;
}

/* The program takes away the ground that it stands on, in one call of several parts. */
static int no_ground(int argc, char **argv)
{
    CHECK(argc == 1);
    extern char __executable_start[], end[];
    uintptr_t first = (uintptr_t)__executable_start & -PAGE, last = ((uintptr_t)end + PAGE - 1) & -PAGE;
    if (strcmp(argv[0], "mprotect") == 0)
        syscall(SYS_mprotect, first, last - first, PROT_NONE);
    else
        syscall(SYS_munmap, first, last - first);
    _exit(4);
}

/* A limit that a child sets for its parent counts at once. */
static int limits(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct rlimit before, small;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    small = before;
    small.rlim_cur = 64 * MIB;
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(prlimit(parent, RLIMIT_AS, &small, NULL) != 0);
    CHECK(status_of(child) == 0);
    CHECK(mmap(NULL, 100 * MIB, PROT_NONE, PRIVATE, -1, 0) == MAP_FAILED && errno == ENOMEM);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    void *map = mmap(NULL, 100 * MIB, PROT_NONE, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED && munmap(map, 100 * MIB) == 0);
    CHECK(setrlimit(RLIMIT_AS, &small) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(mmap(NULL, 100 * MIB, PROT_NONE, PRIVATE, -1, 0) != MAP_FAILED);
    CHECK(status_of(child) == 0);
    say("done\n");
    return 0;
}

/* A process that nobody waits for; it goes on when the program is gone. */
static int daemonize(int argc, char **argv)
{
    CHECK(argc == 1);
    int fds[2];
    CHECK(pipe(fds) == 0);
    if (fork() == 0) {
        setsid();
        if (fork() != 0)
            _exit(0);
        for (int number = 1; number < 32; number++)
            signal(number, SIG_IGN);
        CHECK(write(fds[1], "x", 1) == 1);
        long until = now_ms() + atoi(argv[0]);
        while (now_ms() < until) {
            void *map = mmap(NULL, PAGE, RW, PRIVATE, -1, 0);
            CHECK(map != MAP_FAILED && munmap(map, PAGE) == 0);
            sleep_ms(1);
        }
        say("the daemon ends\n");
        _exit(0);
    }
    char byte;
    CHECK(read(fds[0], &byte, 1) == 1);
    say("the program ends\n");
    return 3;
}

const struct guest_case process_cases[] = {
    { "hello", hello },
    { "exit", exit_with },
    { "die", die_by },
    { "killed_in_call", killed_in_call },
    { "exit_in_call", exit_in_call },
    { "children_killed", children_killed },
    { "exec_from_thread", exec_from_thread },
    { "exec_in_churn", exec_in_churn },
    { "exec_fails", exec_fails },
    { "vfork_exec", vfork_exec },
    { "spawn", spawn },
    { "clone3_process", clone3_process },
    { "clone_vm", clone_vm },
    { "fork_storm", fork_storm },
    { "thread_churn", thread_churn },
    { "fork_in_churn", fork_in_churn },
    { "forker_killed", forker_killed },
    { "sharer_survives", sharer_survives },
    { "leader_ends", leader_ends },
    { "short_threads", short_threads },
    { "no_ground", no_ground },
    { "limits", limits },
    { "daemon", daemonize },
    { NULL, NULL },
};
