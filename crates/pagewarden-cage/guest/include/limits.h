/* limits.h, with the pages that mmap has: wasi-libc's are those of Wasm, 64 KiB. */
#include_next <limits.h>
#undef PAGESIZE
#define PAGESIZE 4096
#undef PAGE_SIZE
#define PAGE_SIZE PAGESIZE
