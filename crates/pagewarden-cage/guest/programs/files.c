/* Files and streams: what is read goes into memory that was never touched, and what is written comes from all over it. */
#include "processes.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { LARGE = 3 << 20 };

static unsigned sum_of(const unsigned char *bytes, size_t length)
{
    unsigned sum = 0;
    for (size_t at = 0; at < length; at++)
        sum = sum * 31 + bytes[at];
    return sum;
}

static void read_fully(int fd, unsigned char *to, size_t length)
{
    while (length > 0) {
        ssize_t count = read(fd, to, length);
        CHECK(count > 0);
        to += count;
        length -= (size_t)count;
    }
}

static void write_fully(int fd, const unsigned char *from, size_t length)
{
    while (length > 0) {
        ssize_t count = write(fd, from, length);
        CHECK(count > 0);
        from += count;
        length -= (size_t)count;
    }
}

static void large(const char *name)
{
    unsigned char *bytes = malloc(LARGE), *again = malloc(LARGE);
    unsigned char *mapped = map_some(LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    unsigned state = 5;
    CHECK(bytes != NULL && again != NULL);
    for (int at = 0; at < LARGE; at++)
        bytes[at] = (unsigned char)next_number(&state);
    int fd = open(name, O_CREAT | O_TRUNC | O_RDWR, 0600);
    CHECK(fd >= 0);
    write_fully(fd, bytes, LARGE);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    read_fully(fd, again, LARGE);
    CHECK(memcmp(bytes, again, LARGE) == 0);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    read_fully(fd, mapped, LARGE);
    printf("%d bytes: %08x %08x %08x\n", LARGE, sum_of(bytes, LARGE), sum_of(again, LARGE), sum_of(mapped, LARGE));

    CHECK(pread(fd, mapped + 1, 5000, LARGE - 5000) == 5000);
    CHECK(memcmp(mapped + 1, bytes + LARGE - 5000, 5000) == 0);
    CHECK(pread(fd, mapped, PAGE, LARGE) == 0);
    CHECK(ftruncate(fd, 100) == 0);
    CHECK(read(fd, mapped, 10) == 0);
    /* Into pieces, one of which is on a page that nobody has touched, and of rights that change. */
    unsigned char *pieces = map_some(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    struct iovec to[] = { { pieces + PAGE - 30, 60 }, { pieces, 0 }, { pieces + 3 * PAGE, 30 }, { pieces + 5, 100 } };
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    ssize_t got = readv(fd, to, 4);
    CHECK(got > 0 && got <= 100 && memcmp(pieces + PAGE - 30, bytes, got < 60 ? (size_t)got : 60) == 0);
    CHECK(mprotect(pieces, 4 * PAGE, PROT_READ) == 0);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(read(fd, pieces, 50) == -1);
    printf("into what is read-only: %s\n", error_name());
    CHECK(write(fd, pieces, 2 * PAGE) > 0);
    CHECK(munmap(pieces, 4 * PAGE) == 0);
    CHECK(write(fd, pieces, 50) == -1);
    printf("from what is not there: %s\n", error_name());
    CHECK(close(fd) == 0 && read(fd, again, 1) == -1);
    printf("closed: %s\n", error_name());
    free(bytes);
    free(again);
}

static void streams(const char *name)
{
    FILE *file = fopen(name, "w");
    CHECK(file != NULL);
    for (int line = 0; line < 5000; line++)
        fprintf(file, "line %d of %s, %.3f\n", line, "many", line / 7.0);
    CHECK(fclose(file) == 0);
    file = fopen(name, "r");
    CHECK(file != NULL);
    char text[80];
    int lines = 0, number, last = -1;
    while (fgets(text, sizeof text, file)) {
        CHECK(sscanf(text, "line %d of", &number) == 1 && number == last + 1);
        last = number;
        lines++;
    }
    CHECK(feof(file) && fseek(file, -5, SEEK_END) == 0 && fgets(text, sizeof text, file));
    printf("%d lines, the last ends in %s", lines, text);
    CHECK(fclose(file) == 0);
    struct stat status;
    CHECK(stat(name, &status) == 0 && S_ISREG(status.st_mode));
    printf("%lld bytes\n", (long long)status.st_size);
}

static void folders(void)
{
    CHECK(mkdir("folder", 0700) == 0);
    CHECK(mkdir("folder", 0700) == -1);
    printf("a folder once more: %s\n", error_name());
    for (int i = 0; i < 40; i++) {
        char name[40];
        snprintf(name, sizeof name, "folder/entry-%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        CHECK(fd >= 0 && close(fd) == 0);
    }
    DIR *folder = opendir("folder");
    CHECK(folder != NULL);
    struct dirent *entry;
    int count = 0, sum = 0, number;
    while ((entry = readdir(folder)))
        if (sscanf(entry->d_name, "entry-%d", &number) == 1) {
            count++;
            sum += number;
        }
    closedir(folder);
    printf("%d entries, %d\n", count, sum);
    CHECK(rename("folder/entry-7", "seven") == 0 && access("seven", F_OK) == 0 && unlink("seven") == 0);
    for (int i = 0; i < 40; i++) {
        char name[40];
        snprintf(name, sizeof name, "folder/entry-%d", i);
        CHECK(unlink(name) == 0 || i == 7);
    }
    CHECK(rmdir("folder") == 0 && open("folder/x", O_RDONLY) == -1);
    printf("gone: %s\n", error_name());
}

/* Words that come in are counted, longest first where counts are equal. */
struct word {
    char *text;
    int count;
    struct word *next;
};

static int by_count(const void *left, const void *right)
{
    const struct word *a = *(struct word *const *)left, *b = *(struct word *const *)right;
    if (a->count != b->count)
        return b->count - a->count;
    return strcmp(a->text, b->text);
}

static void words(void)
{
    enum { BUCKETS = 64 };
    static struct word *buckets[BUCKETS], *all[1000];
    char text[100];
    int count = 0;
    while (scanf("%99s", text) == 1) {
        unsigned hash = sum_of((unsigned char *)text, strlen(text)) % BUCKETS;
        struct word *word = buckets[hash];
        while (word && strcmp(word->text, text) != 0)
            word = word->next;
        if (!word) {
            word = malloc(sizeof *word);
            CHECK(word != NULL && count < 1000);
            *word = (struct word){ strdup(text), 0, buckets[hash] };
            buckets[hash] = all[count++] = word;
        }
        word->count++;
    }
    qsort(all, (size_t)count, sizeof *all, by_count);
    for (int i = 0; i < count && i < 4; i++)
        printf("%s %d\n", all[i]->text, all[i]->count);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    const char *greeting = getenv("GREETING");
    printf("%s, %s\n", greeting ? greeting : "(none)", argv[2]);
    large(argv[1]);
    streams(argv[1]);
    folders();
    words();
    /* A child writes where its parent does. */
    pid_t child = clean_fork();
    if (child == 0) {
        FILE *file = fopen(argv[1], "w");
        CHECK(file != NULL && fprintf(file, "from a child\n") > 0 && fclose(file) == 0);
        puts("a child speaks");
        exit(3);
    }
    printf("it ends: %s\n", end_of(child));
    FILE *file = fopen(argv[1], "r");
    char text[40] = "";
    CHECK(file != NULL && fgets(text, sizeof text, file) && fclose(file) == 0);
    printf("and has written: %s", text);
    CHECK(unlink(argv[1]) == 0);
    return 0;
}
