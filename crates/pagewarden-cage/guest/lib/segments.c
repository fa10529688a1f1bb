/* Shared memory of System V. */
#include <pagewarden.h>
#include <stdint.h>
#include <sys/shm.h>

int shmget(key_t key, size_t size, int flags)
{
    return pagewarden_result(__pagewarden_shmget(key, size, flags));
}

void *shmat(int id, const void *addr, int flags)
{
    return (void *)(intptr_t)pagewarden_result(__pagewarden_shmat(id, (uintptr_t)addr, flags));
}

int shmdt(const void *addr)
{
    return pagewarden_result(__pagewarden_shmdt((uintptr_t)addr));
}

int shmctl(int id, int command, struct shmid_ds *status)
{
    return pagewarden_result(__pagewarden_shmctl(id, command, status));
}
