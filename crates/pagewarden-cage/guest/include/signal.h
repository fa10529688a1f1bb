/* The numbers of the signals that a process can be said to have died of: wasi-libc has them only with its emulation. */
#ifdef _WASI_EMULATED_SIGNAL
#include_next <signal.h>
#elif !defined(PAGEWARDEN_SIGNAL_H)
#define PAGEWARDEN_SIGNAL_H

#define SIGILL 4
#define SIGABRT 6
#define SIGFPE 8
#define SIGKILL 9
#define SIGSEGV 11

#endif
