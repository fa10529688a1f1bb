/* A thread that is not the first replaces the program while others run: all of them are gone afterwards. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *work(void *unused)
{
    for (;;) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(page, 1, 4096);
        munmap(page, 4096);
    }
    return unused;
}

static void *replace(void *unused)
{
    usleep(20000);
    execl("/proc/self/exe", "thread_exec", "again", (char *)NULL);
    abort();
    return unused;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        printf("after exec\n");
        return 0;
    }
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, work, NULL);
    pthread_create(&thread, NULL, replace, NULL);
    pthread_join(thread, NULL);
    return 1;
}
