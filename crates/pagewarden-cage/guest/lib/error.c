/* Linux's error numbers, which the runtime answers with, to those of wasi-libc, which are others. */
#include <errno.h>
#include <pagewarden.h>

static int of_linux(int number)
{
    static const unsigned char table[] = {
        [1] = EPERM,   [2] = ENOENT,  [3] = ESRCH,  [4] = EINTR,   [5] = EIO,     [7] = E2BIG,   [8] = ENOEXEC,
        [9] = EBADF,   [10] = ECHILD, [11] = EAGAIN, [12] = ENOMEM, [13] = EACCES, [14] = EFAULT, [16] = EBUSY,
        [17] = EEXIST, [18] = EXDEV,  [19] = ENODEV, [20] = ENOTDIR, [21] = EISDIR, [22] = EINVAL, [23] = ENFILE,
        [24] = EMFILE, [25] = ENOTTY, [26] = ETXTBSY, [27] = EFBIG, [28] = ENOSPC, [29] = ESPIPE, [30] = EROFS,
        [34] = ERANGE, [38] = ENOSYS, [43] = EIDRM, [75] = EOVERFLOW, [95] = ENOTSUP,
    };
    int is_known = number < (int)sizeof table && table[number] != 0;
    return is_known ? table[number] : EIO;
}

/* Errors are the last page of numbers, as with Linux's system calls: an address in the upper half is none. */
int pagewarden_result(int value)
{
    if ((unsigned)value < -4095u)
        return value;
    errno = of_linux(-value);
    return -1;
}
