/* A process and its child: what is private stays so, and over a page that they share they talk. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct page {
    /* Whose turn it is. */
    _Atomic int turn;
    char text[200];
};

enum { PARENT, CHILD };

static void wait_for(struct page *page, int turn)
{
    while (page->turn != turn)
        sched_yield();
}

int main(void)
{
    char *heap = malloc(1 << 20);
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (heap == NULL || page == MAP_FAILED) {
        perror("no memory");
        return 1;
    }
    strcpy(heap, "written before the fork");

    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 1;
    }
    if (child == 0) {
        wait_for(page, CHILD);
        printf("child: the parent says: %s\n", page->text);
        printf("child: my heap says: %s\n", heap);
        strcpy(heap, "changed by the child");
        snprintf(page->text, sizeof page->text, "my heap now says: %s", heap);
        fflush(stdout);
        page->turn = PARENT;
        return 7;
    }
    strcpy(page->text, "hello");
    page->turn = CHILD;
    wait_for(page, PARENT);
    printf("parent: the child says: %s\n", page->text);
    printf("parent: mine says: %s\n", heap);
    int status;
    waitpid(child, &status, 0);
    printf("parent: the child has ended with %d\n", WEXITSTATUS(status));
    return 0;
}
