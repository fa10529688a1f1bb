/* unistd.h of wasi-libc, and what a cage has besides. */
#include_next <unistd.h>
#ifndef PAGEWARDEN_UNISTD_H
#define PAGEWARDEN_UNISTD_H

#ifdef __cplusplus
extern "C" {
#endif

pid_t fork(void);
pid_t getppid(void);
int getpagesize(void);
int brk(void *);
/* The program's own. malloc goes on using that of wasi-libc, which grows the Wasm memory, thus the same break. */
void *sbrk(intptr_t) __asm__("__pagewarden_own_sbrk");

#ifdef __cplusplus
}
#endif
#endif
