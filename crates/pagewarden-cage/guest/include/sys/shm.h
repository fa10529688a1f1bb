/* Shared memory of System V. The numbers and the layout are Linux's on x86-64. */
#ifndef PAGEWARDEN_SYS_SHM_H
#define PAGEWARDEN_SYS_SHM_H

#include <stddef.h>
#include <sys/ipc.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHM_R 0400
#define SHM_W 0200
#define SHM_RDONLY 010000
#define SHM_RND 020000
#define SHM_REMAP 040000
#define SHM_NORESERVE 010000
#define SHM_DEST 01000
#define SHM_LOCKED 02000
#define SHM_LOCK 11
#define SHM_UNLOCK 12
#define SHMLBA 4096

typedef unsigned long long shmatt_t;

struct shmid_ds {
    struct ipc_perm shm_perm;
    size_t shm_segsz;
    unsigned __segsz_high;
    long long shm_atime, shm_dtime, shm_ctime;
    pid_t shm_cpid, shm_lpid;
    shmatt_t shm_nattch;
    unsigned long long __reserved[2];
};

_Static_assert(sizeof(struct shmid_ds) == 112, "as Linux has it on x86-64");

int shmget(key_t key, size_t size, int flags);
void *shmat(int id, const void *addr, int flags);
int shmdt(const void *addr);
int shmctl(int id, int command, struct shmid_ds *status);

#ifdef __cplusplus
}
#endif
#endif
