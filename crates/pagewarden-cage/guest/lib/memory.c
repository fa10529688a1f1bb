/* sys/mman.h, the break, and the size of a page. */
#include <errno.h>
#include <pagewarden.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SYS_mincore = 27,
    SYS_mlock = 149,
    SYS_munlock = 150,
    SYS_mlockall = 151,
    SYS_munlockall = 152,
    SYS_mlock2 = 325,
};

static void *address(int value)
{
    return (void *)(intptr_t)pagewarden_result(value);
}

void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
    return address(__pagewarden_mmap((uintptr_t)addr, length, prot, flags, fd, offset));
}

int munmap(void *addr, size_t length)
{
    return pagewarden_result(__pagewarden_munmap((uintptr_t)addr, length));
}

int mprotect(void *addr, size_t length, int prot)
{
    return pagewarden_result(__pagewarden_mprotect((uintptr_t)addr, length, prot));
}

void *mremap(void *old_addr, size_t old_length, size_t new_length, int flags, ...)
{
    void *new_addr = NULL;
    if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
        va_list rest;
        va_start(rest, flags);
        new_addr = va_arg(rest, void *);
        va_end(rest);
    }
    return address(__pagewarden_mremap((uintptr_t)old_addr, old_length, new_length, flags, (uintptr_t)new_addr));
}

int madvise(void *addr, size_t length, int advice)
{
    return pagewarden_result(__pagewarden_madvise((uintptr_t)addr, length, advice));
}

/* POSIX wants the error returned, and nothing thrown away for an advice. */
int posix_madvise(void *addr, size_t length, int advice)
{
    if (advice == POSIX_MADV_DONTNEED)
        return 0;
    int before = errno, error = 0;
    if (madvise(addr, length, advice) != 0)
        error = errno;
    errno = before;
    return error;
}

int msync(void *addr, size_t length, int flags)
{
    return pagewarden_result(__pagewarden_msync((uintptr_t)addr, length, flags));
}

static int other(int number, uint32_t a, uint32_t b, uint32_t c)
{
    return pagewarden_result((int)__pagewarden_syscall(number, a, b, c, 0, 0, 0));
}

int mincore(void *addr, size_t length, unsigned char *resident)
{
    return other(SYS_mincore, (uintptr_t)addr, length, (uintptr_t)resident);
}

int mlock(const void *addr, size_t length)
{
    return other(SYS_mlock, (uintptr_t)addr, length, 0);
}

int mlock2(const void *addr, size_t length, unsigned flags)
{
    return other(SYS_mlock2, (uintptr_t)addr, length, flags);
}

int munlock(const void *addr, size_t length)
{
    return other(SYS_munlock, (uintptr_t)addr, length, 0);
}

int mlockall(int flags)
{
    return other(SYS_mlockall, flags, 0, 0);
}

int munlockall(void)
{
    return other(SYS_munlockall, 0, 0, 0);
}

/* wasi-libc's malloc takes for its own, when first called, all there is up to the break. It has to be called before the
   program moves the break for itself. */
static void let_malloc_begin(void)
{
    static int has_begun;
    if (has_begun)
        return;
    has_begun = 1;
    void *volatile block = malloc(1);
    free(block);
}

/* The system call returns the break, moved or not. That it cannot go below its start is no error, as with other libraries. */
int brk(void *addr)
{
    let_malloc_begin();
    if ((uintptr_t)__pagewarden_brk((uintptr_t)addr) >= (uintptr_t)addr)
        return 0;
    errno = ENOMEM;
    return -1;
}

void *sbrk(intptr_t increment)
{
    let_malloc_begin();
    return address(__pagewarden_sbrk(increment));
}

int getpagesize(void)
{
    return 4096;
}

long __real_sysconf(int name);

/* wasi-libc answers with the page of Wasm. */
long __wrap_sysconf(int name)
{
    return name == _SC_PAGESIZE ? getpagesize() : __real_sysconf(name);
}
