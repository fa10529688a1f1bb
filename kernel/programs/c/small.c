// A C program without a library: Linux's memory calls as the host's gcc would have them.

typedef unsigned long word;

enum { WRITE = 1, MMAP = 9, MPROTECT = 10, MUNMAP = 11, BRK = 12, MREMAP = 25, MADVISE = 28, FORK = 57, EXIT = 60, WAIT4 = 61 };
enum { NONE = 0, READ = 1, READ_WRITE = 3, SHARED = 1, PRIVATE = 2, FIXED = 0x10, ANONYMOUS = 0x20 };
enum { MAY_MOVE = 1, DONT_NEED = 4, PAGE = 4096, SIGSEGV = 11 };
enum { ENOMEM = 12, EFAULT = 14, EINVAL = 22, ENOSYS = 38 };

static long call(long number, word a, word b, word c, word d, word e, word f) {
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return answer;
}

static int failures;

// One line in one call.
static void check(const char *text, int holds) {
    char line[160];
    word length = 0;
    for (const char *from = holds ? "ok  " : "FAILED  "; *from; from++) line[length++] = *from;
    for (const char *from = text; *from && length < sizeof line - 16; from++) line[length++] = *from;
    for (const char *from = holds ? "\n" : ": it is not so\n"; *from; from++) line[length++] = *from;
    call(WRITE, 1, (word)line, length, 0, 0, 0);
    failures += !holds;
}

static int is_address(long answer) { return answer < -4095 || answer > 0; }

static long map(word length, word rights, word flags) {
    return call(MMAP, 0, length, rights, flags | ANONYMOUS, -1UL, 0);
}

// Whether pages are zeros. Each has a frame of its own by then; every other one showed zeros before.
static int all_zeros(volatile word *words, word bytes) {
    int zeros = 1;
    for (word page = 0; page < bytes / PAGE; page++) {
        volatile word *first = words + page * (PAGE / sizeof(word));
        if (page % 2 == 0) zeros &= *first == 0;
        first[1] = 0;
    }
    for (word index = 0; index < bytes / sizeof(word); index++)
        zeros &= words[index] == 0;
    return zeros;
}

// Fills pages with words that tell how far from `base` they are.
static void fill(volatile word *words, word bytes, word base) {
    for (word index = 0; index < bytes / sizeof(word); index++) words[index] = (word)&words[index] - base + 1;
}

static int holds(volatile word *words, word bytes, word base) {
    for (word index = 0; index < bytes / sizeof(word); index++)
        if (words[index] != (word)&words[index] - base + 1) return 0;
    return 1;
}

// Gives frames back that are full of something, so that they are the next to be had.
static void leave_dirt(void) {
    long at = map(128 * PAGE, READ_WRITE, PRIVATE);
    fill((volatile word *)at, 128 * PAGE, at);
    call(MUNMAP, at, 128 * PAGE, 0, 0, 0, 0);
}

// The wait status of a child that touches a word.
static int touched_by_child(volatile word *at) {
    int status = -1;
    long child = call(FORK, 0, 0, 0, 0, 0, 0);
    if (child == 0) {
        *at = 1;
        call(EXIT, 0, 0, 0, 0, 0, 0);
    }
    if (call(WAIT4, child, (word)&status, 0, 0, 0, 0) != child) return -1;
    return status & ~0x80;
}

static void mappings(void) {
    long at = map(8 * PAGE, READ_WRITE, PRIVATE);
    check("mmap gives pages", is_address(at));
    volatile word *pages = (volatile word *)at;
    leave_dirt();
    check("new pages are zeros", all_zeros(pages, 8 * PAGE));
    fill(pages, 8 * PAGE, at);
    check("new pages keep what is stored", holds(pages, 8 * PAGE, at));
    check("munmap takes two of them away", call(MUNMAP, at + 2 * PAGE, 2 * PAGE, 0, 0, 0, 0) == 0);
    check("who touches what was unmapped is killed", touched_by_child((volatile word *)(at + 2 * PAGE)) == SIGSEGV);
    check("the neighbours of a hole are as before", holds(pages, 2 * PAGE, at) && holds((volatile word *)(at + 4 * PAGE), 4 * PAGE, at));
    long again = call(MMAP, at + 2 * PAGE, 2 * PAGE, READ_WRITE, PRIVATE | ANONYMOUS | FIXED, -1UL, 0);
    check("MAP_FIXED fills the hole", again == at + 2 * PAGE);
    check("what fills it is zeros", all_zeros((volatile word *)again, 2 * PAGE));
    check("no length is refused", map(0, READ_WRITE, PRIVATE) == -EINVAL);
    check("more than there are addresses is refused", map(1UL << 60, READ_WRITE, PRIVATE) == -ENOMEM);
    check("munmap takes all away at once", call(MUNMAP, at, 8 * PAGE, 0, 0, 0, 0) == 0);
}

static void rights(void) {
    long at = map(2 * PAGE, READ_WRITE, PRIVATE);
    volatile word *page = (volatile word *)at;
    page[0] = 5;
    check("mprotect takes the right to write away", call(MPROTECT, at, PAGE, READ, 0, 0, 0) == 0);
    check("a page that was protected can be read still", page[0] == 5);
    check("who writes to a page that can only be read is killed", touched_by_child(page) == SIGSEGV);
    check("mprotect gives the right back", call(MPROTECT, at, PAGE, READ_WRITE, 0, 0, 0) == 0);
    page[0] += 1;
    check("a page whose right came back can be written", page[0] == 6);
    check("mprotect of what is not mapped is refused", call(MUNMAP, at, 2 * PAGE, 0, 0, 0, 0) == 0 &&
                                                           call(MPROTECT, at, PAGE, READ, 0, 0, 0) == -ENOMEM);
}

static void moves(void) {
    // The fifth page is in the way, so that the others have to move.
    long at = map(5 * PAGE, READ_WRITE, PRIVATE);
    fill((volatile word *)at, 4 * PAGE, at);
    long moved = call(MREMAP, at, 4 * PAGE, 64 * PAGE, MAY_MOVE, 0, 0);
    check("mremap makes a mapping longer", is_address(moved) && moved != at);
    leave_dirt();
    check("what a moved mapping held has come along", holds((volatile word *)moved, 4 * PAGE, moved));
    check("what was added to it is zeros", all_zeros((volatile word *)(moved + 4 * PAGE), 60 * PAGE));
    check("mremap makes it shorter in place", call(MREMAP, moved, 64 * PAGE, PAGE, 0, 0, 0) == moved);
    check("what is left of it is what it was", holds((volatile word *)moved, PAGE, moved));
    check("mremap of what is gone is refused", call(MREMAP, moved + PAGE, PAGE, PAGE, 0, 0, 0) == -EFAULT);
    check("MADV_DONTNEED forgets", call(MADVISE, moved, PAGE, DONT_NEED, 0, 0, 0) == 0 &&
                                       all_zeros((volatile word *)moved, PAGE));
    call(MUNMAP, moved, PAGE, 0, 0, 0, 0);
    call(MUNMAP, at + 4 * PAGE, PAGE, 0, 0, 0, 0);
}

static void program_break(void) {
    long start = call(BRK, 0, 0, 0, 0, 0, 0);
    check("brk tells where the heap ends", is_address(start));
    check("the heap grows by what is asked", call(BRK, start + 3 * PAGE, 0, 0, 0, 0, 0) == start + 3 * PAGE);
    volatile word *heap = (volatile word *)((start + 7) & ~7L);
    // What it held before it shrank must not come back.
    fill(heap, 3 * PAGE, start);
    call(BRK, start, 0, 0, 0, 0, 0);
    call(BRK, start + 3 * PAGE, 0, 0, 0, 0, 0);
    check("the heap is zeros at first", all_zeros(heap, 3 * PAGE));
    fill(heap, 3 * PAGE, start);
    check("the heap keeps what is stored", holds(heap, 3 * PAGE, start));
    check("the heap shrinks again", call(BRK, start, 0, 0, 0, 0, 0) == start);
    check("a break that cannot be leaves it as it is", call(BRK, 1, 0, 0, 0, 0, 0) == start);
}

static word counter = 1;

static void forks(void) {
    volatile word *both = (volatile word *)map(PAGE, READ_WRITE, SHARED);
    counter = 41;
    long child = call(FORK, 0, 0, 0, 0, 0, 0);
    if (child == 0) {
        counter += 1;
        *both = counter;
        call(EXIT, counter == 42 ? 3 : 4, 0, 0, 0, 0, 0);
    }
    int status = 0;
    check("the parent waits for its child", call(WAIT4, child, (word)&status, 0, 0, 0, 0) == child);
    check("the child exits with 3", status == 3 << 8);
    check("the child's variable is its own", counter == 41);
    check("a shared page is seen by both", *both == 42);
    check("no child is left", call(WAIT4, -1UL, 0, 0, 0, 0, 0) == -10);
}

__attribute__((used)) static void start(void) {
    mappings();
    rights();
    moves();
    program_break();
    forks();
    check("a number that is no call is refused", call(100000, 0, 0, 0, 0, 0, 0) == -ENOSYS);
    call(EXIT, failures != 0, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "  xor %ebp, %ebp\n"
        "  and $-16, %rsp\n"
        "  call start\n"
        "  ud2\n");
