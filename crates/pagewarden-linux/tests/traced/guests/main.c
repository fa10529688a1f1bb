/* guest OUT CASE [ARGUMENT...]: runs one case. */
#include "guest.h"

static const char *out;
static char **environment;

void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    int before = errno;
    int fd = open(out, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0 || write(fd, line, (size_t)length) != length)
        _exit(98);
    close(fd);
    errno = before;
}

void become(const char *name, const char *argument)
{
    char *const arguments[] = { "guest", (char *)out, (char *)name, (char *)argument, NULL };
    execve("/proc/thread-self/exe", arguments, environment);
}

int status_of(pid_t child)
{
    int status = -1;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    return status;
}

void sleep_ms(long milliseconds)
{
    struct timespec left = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv, char **envp)
{
    const struct guest_case *tables[] = { call_cases, process_cases, signal_cases, refused_cases, budget_cases,
                                         advice_cases, sealed_cases };
    if (argc < 3)
        return 97;
    out = argv[1];
    environment = envp;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct guest_case *one = tables[i]; one->name; one++)
            if (strcmp(one->name, argv[2]) == 0)
                return one->run(argc - 3, argv + 3);
    return 96;
}
