/* The smallest program with an argument vector, printf and a float. */
#include <stdio.h>

int main(int argc, char **argv)
{
    printf("%d arguments, half of them %.1f\n", argc - 1, (argc - 1) / 2.0);
    for (int i = 1; i < argc; i++)
        printf("%s\n", argv[i]);
    return 0;
}
