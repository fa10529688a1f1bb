/* Signals that meet memory calls: timers while mapping, a handled fault that maps the page, an alternate stack. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t ticks, faults;

static void tick(int number)
{
    (void)number;
    ticks++;
}

static void fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    char *page = (char *)((unsigned long)info->si_addr & ~4095ul);
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE))
        abort();
    faults++;
}

int main(void)
{
    stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };
    sigaltstack(&stack, NULL);
    struct sigaction action = { .sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigaction(SIGSEGV, &action, NULL);
    action = (struct sigaction){ .sa_handler = tick, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = { { 0, 500 }, { 0, 500 } };
    setitimer(ITIMER_REAL, &timer, NULL);

    for (int round = 0; round < 2000 || ticks < 20; round++) {
        char *pages = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED)
            abort();
        memset(pages, round & 127, 8 * 4096);
        if (munmap(pages, 8 * 4096))
            abort();
    }
    timer = (struct itimerval){ 0 };
    setitimer(ITIMER_REAL, &timer, NULL);

    char *pages = mmap(NULL, 50 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < 50; page++)
        pages[page * 4096] = 1;
    printf("%d faults handled, timer %s\n", (int)faults, ticks ? "ticked" : "did not tick");
    return 0;
}
