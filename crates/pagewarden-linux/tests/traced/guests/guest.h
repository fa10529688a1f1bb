/* What all guest programs have in common: each case is a function, and tells by lines in a file. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

/* The process ends with this status when a check does not hold. */
#define CHECK_FAILED 99

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            say("%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);    \
            _exit(CHECK_FAILED);                                                          \
        }                                                                                 \
    } while (0)

typedef int (*case_fn)(int argc, char **argv);
struct guest_case {
    const char *name;
    case_fn run;
};
extern const struct guest_case call_cases[], process_cases[], signal_cases[], refused_cases[], budget_cases[],
    advice_cases[], sealed_cases[];

/* Adds a line to the file of results. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Replaces the program by itself, running another case. */
void become(const char *name, const char *argument);
/* Waits for a child and gives its status. */
int status_of(pid_t child);
void sleep_ms(long milliseconds);
long now_ms(void);
