/* What the runtime of a cage gives its guest, as it is imported: what Linux's system calls return, a value or minus an error
   number of Linux. The functions of the other headers return and set errno as those of a C library do. */
#ifndef PAGEWARDEN_H
#define PAGEWARDEN_H

#ifdef __cplusplus
extern "C" {
#endif

#define PAGEWARDEN_IMPORT(name) \
    __attribute__((import_module("pagewarden"), import_name(#name))) __pagewarden_##name

int PAGEWARDEN_IMPORT(mmap)(unsigned addr, unsigned length, int prot, int flags, int fd, long long offset);
int PAGEWARDEN_IMPORT(munmap)(unsigned addr, unsigned length);
int PAGEWARDEN_IMPORT(mprotect)(unsigned addr, unsigned length, int prot);
int PAGEWARDEN_IMPORT(mremap)(unsigned addr, unsigned old_length, unsigned new_length, int flags, unsigned new_addr);
int PAGEWARDEN_IMPORT(brk)(unsigned addr);
int PAGEWARDEN_IMPORT(sbrk)(int increment);
int PAGEWARDEN_IMPORT(madvise)(unsigned addr, unsigned length, int advice);
int PAGEWARDEN_IMPORT(msync)(unsigned addr, unsigned length, int flags);
int PAGEWARDEN_IMPORT(shmget)(int key, unsigned size, int flags);
int PAGEWARDEN_IMPORT(shmat)(int id, unsigned addr, int flags);
int PAGEWARDEN_IMPORT(shmdt)(unsigned addr);
int PAGEWARDEN_IMPORT(shmctl)(int id, int command, void *status);
int PAGEWARDEN_IMPORT(fork)(void);
int PAGEWARDEN_IMPORT(clone)(int (*entry)(int), int argument);
int PAGEWARDEN_IMPORT(wait)(int *status);
int PAGEWARDEN_IMPORT(waitpid)(int pid, int *status, int options);
int PAGEWARDEN_IMPORT(getpid)(void);
int PAGEWARDEN_IMPORT(getppid)(void);
_Noreturn void PAGEWARDEN_IMPORT(exit)(int code);
/* Any other memory call, by its number on x86-64. */
long long PAGEWARDEN_IMPORT(syscall)(long long number, long long a, long long b, long long c, long long d, long long e,
                                     long long f);

/* A new process with a copy of this one's memory that calls `entry` and exits with what that returns. Unlike fork it asks
   nothing of the compiler, and costs the program nothing. Returns the process's number, or -1 with errno set. */
int pagewarden_clone(int (*entry)(int), int argument);

/* What an import has returned, as a C library returns it: -1 and errno for an error. */
int pagewarden_result(int value);

#ifdef __cplusplus
}
#endif
#endif
