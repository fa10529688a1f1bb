/* Signals that meet memory calls. */
#include "guest.h"
#include <sys/time.h>

static volatile sig_atomic_t alarms;
static volatile long next_value;
static volatile sig_atomic_t out_of_order;

static void on_alarm(int number)
{
    (void)number;
    alarms++;
}

/* The handler makes memory calls itself. */
static void on_queued(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (info->si_value.sival_int != next_value)
        out_of_order = 1;
    next_value++;
    int before = errno;
    char *map = mmap(NULL, 2 * PAGE, RW, PRIVATE, -1, 0);
    if (map == MAP_FAILED || mprotect(map, PAGE, PROT_READ) != 0 || munmap(map, 2 * PAGE) != 0)
        out_of_order = 2;
    errno = before;
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void ring_every(long microseconds)
{
    struct itimerval timer = { { 0, microseconds }, { 0, microseconds } };
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* One memory call of each kind, several host calls each; every answer is looked at. */
static void memory_calls(char mark)
{
    char *map = mmap(NULL, 6 * PAGE, RW, PRIVATE, -1, 0);
    CHECK(map != MAP_FAILED);
    map[PAGE] = mark;
    CHECK(mprotect(map + PAGE, PAGE, PROT_READ) == 0);
    CHECK(mprotect(map + 3 * PAGE, PAGE, PROT_NONE) == 0);
    CHECK(mprotect(map, 6 * PAGE, RW) == 0);
    CHECK(map[PAGE] == mark && map[3 * PAGE] == 0);
    errno = 0;
    CHECK(mprotect(map + 1, PAGE, RW) == -1 && errno == EINVAL);
    CHECK(madvise(map, 6 * PAGE, MADV_DONTNEED) == 0 && map[PAGE] == 0);
    char *moved = mremap(map, 6 * PAGE, 12 * PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED);
    CHECK(munmap(moved, 12 * PAGE) == 0);
}

static int alarm_storm(int argc, char **argv)
{
    (void)argc, (void)argv;
    handle(SIGALRM, on_alarm, 0);
    ring_every(1000);
    long until = now_ms() + 500;
    int rounds = 0;
    while (now_ms() < until)
        memory_calls((char)++rounds);
    ring_every(0);
    CHECK(rounds > 10);
    /* One waits while another is pending: not every ring counts, but most do. */
    CHECK(alarms > 100 && alarms <= 520);
    say("done\n");
    return 0;
}

/* Real-time signals queue: every one comes, in order. */
static int queued_storm(int argc, char **argv)
{
    (void)argc, (void)argv;
    enum { COUNT = 1000 };
    struct sigaction action = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO };
    CHECK(sigaction(SIGRTMIN, &action, NULL) == 0);
    pid_t parent = getpid();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int i = 0; i < COUNT; i++) {
            while (sigqueue(parent, SIGRTMIN, (union sigval){ .sival_int = i }) != 0)
                CHECK(errno == EAGAIN);
            if (i % 4 == 0)
                usleep(100);
        }
        _exit(0);
    }
    long until = now_ms() + 10000;
    for (int round = 0; next_value < COUNT && now_ms() < until; round++)
        memory_calls((char)round);
    CHECK(status_of(child) == 0);
    CHECK(next_value == COUNT && out_of_order == 0);
    say("done\n");
    return 0;
}

/* Calls that wait are interrupted, or restarted, as ever. */
static int interrupted_calls(int argc, char **argv)
{
    (void)argc, (void)argv;
    int fds[2];
    char byte;
    CHECK(pipe(fds) == 0);
    for (int i = 0; i < 5; i++) {
        memory_calls((char)i);
        handle(SIGALRM, on_alarm, 0);
        ring_every(10000);
        CHECK(read(fds[0], &byte, 1) == -1 && errno == EINTR);
        struct timespec left = { 0, 0 }, wanted = { 5, 0 };
        CHECK(nanosleep(&wanted, &left) == -1 && errno == EINTR && left.tv_sec == 4);
        memory_calls((char)i);
        handle(SIGALRM, on_alarm, SA_RESTART);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            sleep_ms(35);
            _exit(write(fds[1], "x", 1) == 1 ? 0 : 1);
        }
        int before = alarms;
        CHECK(read(fds[0], &byte, 1) == 1 && byte == 'x');
        CHECK(alarms > before);
        ring_every(0);
        CHECK(status_of(child) == 0);
    }
    say("done\n");
    return 0;
}

/* The mask is the guest's own, and what is blocked stays pending. */
static int signal_mask(int argc, char **argv)
{
    (void)argc, (void)argv;
    sigset_t blocked, now, pending;
    handle(SIGUSR1, on_alarm, 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0);
    CHECK(raise(SIGUSR1) == 0);
    for (int i = 0; i < 20; i++)
        memory_calls((char)i);
    CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
    for (int number = 1; number < 65; number++)
        if (number != 32 && number != 33)
            CHECK(sigismember(&now, number) == sigismember(&blocked, number));
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1 && alarms == 0);
    sigemptyset(&blocked);
    CHECK(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0 && alarms == 1);
    say("done\n");
    return 0;
}

static __attribute__((noreturn)) void *call_forever(void *counter)
{
    for (;;) {
        memory_calls(3);
        __atomic_add_fetch((long *)counter, 1, __ATOMIC_SEQ_CST);
    }
}

static void stop_and_continue(pid_t child, int number, const long *counter)
{
    int status;
    CHECK(kill(child, number) == 0);
    CHECK(waitpid(child, &status, WUNTRACED | WCONTINUED) == child);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == number);
    long seen = __atomic_load_n(counter, __ATOMIC_SEQ_CST);
    sleep_ms(5);
    CHECK(__atomic_load_n(counter, __ATOMIC_SEQ_CST) == seen);
    CHECK(waitpid(child, &status, WUNTRACED | WCONTINUED | WNOHANG) == 0);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK(waitpid(child, &status, WUNTRACED | WCONTINUED) == child);
    CHECK(WIFCONTINUED(status));
    long until = now_ms() + 5000;
    while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) == seen)
        CHECK(now_ms() < until);
}

/* stop THREADS: a parent that stops and continues a child sees what it sees without us. */
static int stops(int argc, char **argv)
{
    CHECK(argc == 1);
    int threads = atoi(argv[0]);
    long *counter = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counter != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        /* The terminal's stop signals count only where somebody outside of the group is there to continue it. */
        CHECK(setpgid(0, 0) == 0);
        pthread_t thread;
        for (int i = 1; i < threads; i++)
            CHECK(pthread_create(&thread, NULL, call_forever, counter) == 0);
        call_forever(counter);
    }
    while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) == 0)
        sleep_ms(1);
    for (int i = 0; i < 15; i++) {
        stop_and_continue(child, SIGSTOP, counter);
        stop_and_continue(child, i % 2 ? SIGTSTP : SIGTTIN, counter);
        usleep((useconds_t)(i * 97));
    }
    /* A stopped process dies of SIGKILL at once. */
    CHECK(kill(child, SIGSTOP) == 0 && kill(child, SIGKILL) == 0);
    int status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    say("done\n");
    return 0;
}

/* The program itself is stopped, and continued by its child. */
static int stopped_itself(int argc, char **argv)
{
    (void)argc, (void)argv;
    enum { RUNNING, STOPPING, CONTINUED };
    int *state = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(state != MAP_FAILED);
    handle(SIGCONT, on_alarm, 0);
    for (int i = 0; i < 5; i++) {
        __atomic_store_n(state, RUNNING, __ATOMIC_SEQ_CST);
        pid_t parent = getpid(), child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            while (__atomic_load_n(state, __ATOMIC_SEQ_CST) == RUNNING)
                sleep_ms(1);
            /* Again, should the first have come before the stop. */
            do {
                sleep_ms(50);
                CHECK(kill(parent, SIGCONT) == 0);
            } while (__atomic_load_n(state, __ATOMIC_SEQ_CST) != CONTINUED);
            _exit(0);
        }
        memory_calls((char)i);
        int before = alarms;
        long started = now_ms();
        __atomic_store_n(state, STOPPING, __ATOMIC_SEQ_CST);
        CHECK(raise(SIGSTOP) == 0);
        CHECK(now_ms() - started >= 45 && alarms > before);
        memory_calls((char)i);
        __atomic_store_n(state, CONTINUED, __ATOMIC_SEQ_CST);
        CHECK(status_of(child) == 0);
    }
    say("done\n");
    return 0;
}

static char *guarded;
static int faults;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    uintptr_t page = (uintptr_t)info->si_addr & -PAGE;
    if (page < (uintptr_t)guarded || page >= (uintptr_t)guarded + 64 * PAGE)
        _exit(1);
    faults++;
    if (mprotect((void *)page, PAGE, RW) != 0)
        _exit(2);
}

/* A garbage collector's way: a fault opens the page, on a stack of its own. */
static int fault_handler(int argc, char **argv)
{
    (void)argc, (void)argv;
    stack_t stack = { .ss_sp = malloc(64 * 1024), .ss_size = 64 * 1024 };
    CHECK(stack.ss_sp && sigaltstack(&stack, NULL) == 0);
    struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    guarded = mmap(NULL, 64 * PAGE, PROT_NONE, PRIVATE, -1, 0);
    CHECK(guarded != MAP_FAILED);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 64; i++)
            guarded[(i * 37 % 64) * PAGE + i] = 1;
        CHECK(mprotect(guarded, 64 * PAGE, round % 2 ? PROT_NONE : PROT_READ) == 0);
    }
    CHECK(faults == 5 * 64);
    say("done\n");
    return 0;
}

const struct guest_case signal_cases[] = {
    { "alarm_storm", alarm_storm },
    { "queued_storm", queued_storm },
    { "interrupted_calls", interrupted_calls },
    { "signal_mask", signal_mask },
    { "stops", stops },
    { "stopped_itself", stopped_itself },
    { "fault_handler", fault_handler },
    { NULL, NULL },
};
