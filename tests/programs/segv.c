/* Dies of a fault at an address that nothing is mapped at. */
#include <stdio.h>

int main(void)
{
    volatile int *nowhere = (volatile int *)16;
    printf("about to fault\n");
    fflush(stdout);
    return *nowhere;
}
