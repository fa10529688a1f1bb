/* For programs that say what they see, and stop where it is not as it should be. */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096 };

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            printf("line %d: not so: %s (%s)\n", __LINE__, #condition, error_name()); \
            fflush(stdout);                                                           \
            _exit(101);                                                               \
        }                                                                             \
    } while (0)

/* The numbers are not the same everywhere, nor what strerror says. */
static inline const char *error_name(void)
{
    switch (errno) {
    case 0: return "no error";
    case EACCES: return "EACCES";
    case EAGAIN: return "EAGAIN";
    case EBADF: return "EBADF";
    case EBUSY: return "EBUSY";
    case ECHILD: return "ECHILD";
    case EEXIST: return "EEXIST";
    case EFAULT: return "EFAULT";
    case EIDRM: return "EIDRM";
    case EINVAL: return "EINVAL";
    case ENODEV: return "ENODEV";
    case ENOENT: return "ENOENT";
    case ENOMEM: return "ENOMEM";
    case ENOSYS: return "ENOSYS";
    case ENOTSUP: return "ENOTSUP";
    case EPERM: return "EPERM";
    default: return "another error";
    }
}

/* malloc, of which the compiler cannot know that nobody uses the block, and that it may as well pretend to have got one. */
static inline void *allocate(size_t size)
{
    void *(*volatile call)(size_t) = malloc;
    return call(size);
}

/* A reproducible stream of numbers. */
static inline unsigned next_number(unsigned *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}
#endif
