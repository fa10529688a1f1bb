/* Keys of System V, of which a cage has shared memory. The numbers are Linux's. */
#ifndef PAGEWARDEN_SYS_IPC_H
#define PAGEWARDEN_SYS_IPC_H

#include <sys/types.h>

#define IPC_PRIVATE ((key_t)0)
#define IPC_CREAT 01000
#define IPC_EXCL 02000
#define IPC_NOWAIT 04000
#define IPC_RMID 0
#define IPC_SET 1
#define IPC_STAT 2

/* As Linux has it on x86-64. */
struct ipc_perm {
    key_t __key;
    unsigned uid, gid, cuid, cgid;
    unsigned mode;
    unsigned short __seq;
    unsigned short __unused[3];
    unsigned long long __reserved[2];
};

#endif
