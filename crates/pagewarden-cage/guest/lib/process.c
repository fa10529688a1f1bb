/* Processes of a cage's family. */
#include <pagewarden.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t fork(void)
{
    return pagewarden_result(__pagewarden_fork());
}

int pagewarden_clone(int (*entry)(int), int argument)
{
    return pagewarden_result(__pagewarden_clone(entry, argument));
}

pid_t wait(int *status)
{
    return pagewarden_result(__pagewarden_wait(status));
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    return pagewarden_result(__pagewarden_waitpid(pid, status, options));
}

pid_t getpid(void)
{
    return __pagewarden_getpid();
}

pid_t getppid(void)
{
    return __pagewarden_getppid();
}
