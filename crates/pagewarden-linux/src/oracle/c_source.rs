//! Prints a program as a self-contained C program, for those who want to see for themselves.
//!
//! It makes the same calls and prints the same answers, but runs in one process with a layout of its own, so free
//! placement and the break lie elsewhere.

use std::fmt::{self, Write as _};

use super::files::FILE_BYTES;
use super::guard::SEGMENT_PAGES;
use super::program::{Arg, Base, Call, FileKind, PAGE, Program, SYS_MSEAL, Step, WINDOW};

const PROLOGUE: &str = r#"#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static siginfo_t fault;
static unsigned long r[256];
static unsigned char residence[1 << 16];

static void on_fault(int signal, siginfo_t *info, void *context) {
    fault = *info;
    siglongjmp(back, 1);
}

static unsigned long answer(int step, long value) {
    if (value == -1) printf("%d ! %s\n", step, strerrorname_np(errno));
    else printf("%d = 0x%lx\n", step, value);
    return value;
}

static void touch(int step, unsigned long addr, int byte) {
    if (sigsetjmp(back, 1)) {
        printf("%d fault signal %d code %d at 0x%lx\n", step, fault.si_signo, fault.si_code, (long)fault.si_addr);
        return;
    }
    if (byte >= 0) *(volatile unsigned char *)addr = byte;
    printf("%d = 0x%x\n", step, byte >= 0 ? 0 : *(volatile unsigned char *)addr);
}

static long limit(int resource, unsigned long bytes) {
    struct rlimit both;
    getrlimit(resource, &both);
    both.rlim_cur = bytes < both.rlim_max ? bytes : both.rlim_max;
    return setrlimit(resource, &both);
}

static int fd_sealable = -1;

static long advise(int advice, unsigned long how, unsigned long a, unsigned long a_len, unsigned long b, unsigned long b_len) {
    unsigned long all[4][2] = {{a, a_len}, {b, b_len}, {a, 0}, {b + 1, 0}}, vector[4][2], count = how >> 4 & 7;
    int target = how & 15, wrong = how >> 24 & 7;
    for (int i = 0; i < 4; i++) memcpy(vector[i], all[how >> (8 + 4 * i) & 3], sizeof vector[i]);
    int pidfd = target == 0 ? -10000 : target == 2 ? -10001 : target == 1 ? syscall(SYS_pidfd_open, getpid(), 0)
        : target == 3 ? syscall(SYS_pidfd_open, getppid(), 0) : target == 4 ? 0 : 987;
    if (wrong == 2) count = 1025;
    if (wrong == 4) count |= 1UL << 32;
    return syscall(SYS_process_madvise, pidfd, wrong == 1 ? NULL : vector, count, advice, wrong == 3);
}

static void state(void) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) printf("map %s", line);
    if (maps) fclose(maps);
    printf("break = 0x%lx\n", syscall(SYS_brk, 0));
}

static int fd_fresh = -1, copies[2], twin_from, twin_to, twin_turn, is_twin;
static unsigned char buffer[3 * 4096];

static void bytes(int step, long count, const unsigned char *from) {
    unsigned long hash = 0xcbf29ce484222325UL;
    if (count < 0) { answer(step, count); return; }
    for (long i = 0; i < count; i++) hash = (hash ^ from[i]) * 0x100000001b3UL;
    printf("%d = 0x%lx bytes 0x%lx\n", step, count, hash);
}

static int faulted(int step) {
    printf("%d fault signal %d code %d at 0x%lx\n", step, fault.si_signo, fault.si_code, (long)fault.si_addr);
    return 1;
}

static void load(int step, unsigned long addr, unsigned long len) {
    if (sigsetjmp(back, 1)) { faulted(step); return; }
    for (unsigned long i = 0; i < len; i++) buffer[i] = ((volatile unsigned char *)addr)[i];
    bytes(step, len, buffer);
}

static void store(int step, unsigned long addr, unsigned long len, int byte) {
    if (sigsetjmp(back, 1)) { faulted(step); return; }
    for (unsigned long i = 0; i < len; i++) ((volatile unsigned char *)addr)[i] = byte;
    printf("%d = 0x0\n", step);
}

static void execute(int step, unsigned long addr) {
    if (!sigsetjmp(back, 1) && *(volatile unsigned char *)addr != 0xc3) { printf("%d skipped\n", step); return; }
    if (sigsetjmp(back, 1)) { faulted(step); return; }
    ((void (*)(void))addr)();
    printf("%d = 0x0\n", step);
}

static void pwrite_(int step, int fd, unsigned long offset, unsigned long len, int byte) {
    memset(buffer, byte, sizeof buffer);
    answer(step, pwrite(fd, buffer, len, offset));
}

static void pread_(int step, int fd, unsigned long offset, unsigned long len) {
    bytes(step, pread(fd, buffer, len < sizeof buffer ? len : sizeof buffer, offset), buffer);
}

static void copy_out(int step, unsigned long addr, unsigned long len) {
    long written = write(copies[1], (void *)addr, len);
    int error = errno;
    long drained = read(copies[0], buffer, sizeof buffer);
    errno = written < 0 ? error : errno;
    bytes(step, written < 0 ? written : drained, buffer);
}

static void copy_in(int step, unsigned long addr, unsigned long len, int byte) {
    memset(buffer, byte, sizeof buffer);
    write(copies[1], buffer, len);
    answer(step, read(copies[0], (void *)addr, len));
    read(copies[0], buffer, sizeof buffer);
}

static void vm_read(int step, unsigned long addr, unsigned long len) {
    struct iovec local = {buffer, len}, remote = {(void *)addr, len};
    bytes(step, process_vm_readv(getpid(), &local, 1, &remote, 1, 0), buffer);
}

static void *storm_part(void *argument) {
    unsigned long *order = argument, word = order[0], hash = 0;
    for (int i = 0; i < 24; i++) {
        word = word * 6364136223846793005UL + 1442695040888963407UL;
        unsigned long addr = 0x1004400000UL + order[1] * 0x400000 + (word >> 33 & 7) * 4096, len = ((word >> 41 & 7) + 1) * 4096;
        int what = word >> 49 & 7;
        long done = what < 3 ? (long)mmap((void *)addr, len, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
            : what < 6 ? mprotect((void *)addr, len, what == 5 ? 3 : 1)
            : what == 6 ? madvise((void *)addr, len, 4) : munmap((void *)addr, len);
        unsigned long told = done == -1 ? errno | 1UL << 63 : done;
        hash = (hash ^ told) * 0x9e3779b97f4a7c15UL;
        hash = hash << 29 | hash >> 35;
    }
    order[0] = hash;
    return NULL;
}

static void storm(int step, unsigned long seed) {
    unsigned long orders[2][2] = {{seed, 0}, {seed, 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, storm_part, orders[i]);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("%d = 0x30 bytes 0x%lx\n", step, orders[0][0] ^ (orders[1][0] << 32 | orders[1][0] >> 32));
}

static void on_thread(void *(*body)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, body, NULL);
    pthread_join(thread, NULL);
}

static int twin(void) {
    int down[2], up[2];
    pipe(down), pipe(up);
    fflush(stdout);
    int child = fork();
    is_twin = child == 0, twin_turn = 0;
    twin_from = is_twin ? down[0] : up[0], twin_to = is_twin ? up[1] : down[1];
    close(is_twin ? down[1] : up[1]), close(is_twin ? up[0] : down[0]);
    return child;
}

static int my_turn(void) {
    char byte;
    int is_mine = (twin_turn++ % 2 == 0) == is_twin;
    if (!is_mine) read(twin_from, &byte, 1);
    return is_mine;
}

static void pass(void) {
    fflush(stdout);
    write(twin_to, "", 1);
}

int main(void) {
    pipe2(copies, O_NONBLOCK);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    static char output[1 << 20];
    setvbuf(stdout, output, _IOFBF, sizeof output);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
"#;

/// The C program that does what `program` does.
pub fn c_source(program: &Program) -> String {
    let mut text = String::from(PROLOGUE);
    // Writing to a string cannot fail.
    let _ = write_main(&mut text, program);
    text
}

fn write_main(text: &mut String, program: &Program) -> fmt::Result {
    for kind in FileKind::ALL {
        let is_sealed = |step: &Step| *kind == FileKind::Sealable && step.call == Call::Seal;
        if program.steps.iter().any(|step| step.used_args().contains(&Arg::File(*kind)) || is_sealed(step)) {
            text.push_str(&declaration(*kind));
        }
    }
    if program.steps.iter().any(|step| step.call == Call::Shmat) {
        writeln!(text, "    int segment = shmget(IPC_PRIVATE, {:#x}, IPC_CREAT | 0600);", SEGMENT_PAGES * PAGE)?;
        writeln!(text, "    memset(shmat(segment, NULL, 0), 0x5a, {:#x});", SEGMENT_PAGES * PAGE)?;
        writeln!(text, "    shmctl(segment, IPC_RMID, NULL);")?;
    }
    write_steps(text, program, 0, program.steps.len())?;
    writeln!(text, "    return 0;\n}}")
}

/// The steps from `from` to `to`; those of children are nested.
fn write_steps(text: &mut String, program: &Program, from: usize, to: usize) -> fmt::Result {
    let mut index = from;
    let mut is_for_thread = false;
    while index < to {
        let step = &program.steps[index];
        let count = match (step.call, step.args[0]) {
            (Call::Fork | Call::Twin | Call::Vfork, Arg::Value(count)) => usize::try_from(count).unwrap_or(usize::MAX),
            _ => 0,
        };
        let end = index.saturating_add(count).saturating_add(1).min(to);
        match step.call {
            Call::Fork | Call::Vfork => {
                let how = if step.call == Call::Fork { "fork" } else { "vfork" };
                writeln!(text, "    fflush(stdout);\n    if ({how}() == 0) {{")?;
                write_steps(text, program, index + 1, end)?;
                let last = if step.call == Call::Fork { "state();\n    exit(0);" } else { "_exit(0);" };
                writeln!(text, "    {last}\n    }}\n    wait(NULL);")?;
            }
            Call::Twin => {
                writeln!(text, "    twin(); // {step}")?;
                for own in index + 1..end {
                    writeln!(text, "    if (my_turn()) {{")?;
                    write_steps(text, program, own, own + 1)?;
                    writeln!(text, "    pass();\n    }}")?;
                }
                writeln!(text, "    if (is_twin) {{\n    state();\n    exit(0);\n    }}\n    wait(NULL);")?;
            }
            Call::Thread => is_for_thread = true,
            _ if is_for_thread => {
                let statement = statement(index, step);
                writeln!(
                    text,
                    "    {{ void *body(void *none) {{ {statement} return NULL; }} on_thread(body); }} // {step}"
                )?;
                is_for_thread = false;
            }
            _ => writeln!(text, "    {} // {step}", statement(index, step))?,
        }
        index = end;
    }
    Ok(())
}

fn declaration(kind: FileKind) -> String {
    let name = kind.name();
    let filled = format!(
        "    {{ static char bytes[{FILE_BYTES}]; memset(bytes, 1, sizeof bytes); pwrite(fd_{name}, bytes, sizeof bytes, 0); }}\n"
    );
    match kind {
        FileKind::None => format!("    int fd_{name} = -1;\n"),
        FileKind::Closed => format!("    int fd_{name} = 987;\n"),
        FileKind::ReadWrite => format!("    int fd_{name} = open(\"oracle.file\", O_RDWR | O_CREAT, 0600);\n{filled}"),
        FileKind::ReadOnly => {
            format!(
                "    truncate(\"oracle.file\", {FILE_BYTES});\n    int fd_{name} = open(\"oracle.file\", O_RDONLY | O_CREAT, 0600);\n"
            )
        }
        FileKind::WriteOnly => {
            format!("    int fd_{name} = open(\"oracle.file\", O_WRONLY | O_CREAT, 0600);\n{filled}")
        }
        FileKind::Memfd => format!("    int fd_{name} = memfd_create(\"oracle\", 0);\n{filled}"),
        FileKind::Sealable => format!("    fd_{name} = memfd_create(\"{name}\", MFD_ALLOW_SEALING);\n{filled}"),
        FileKind::Fresh => String::new(),
        FileKind::Sealed => format!(
            "    int fd_{name} = memfd_create(\"{name}\", MFD_ALLOW_SEALING);\n{filled}    fcntl(fd_{name}, F_ADD_SEALS, F_SEAL_WRITE);\n"
        ),
        FileKind::Zero => format!("    int fd_{name} = open(\"/dev/zero\", O_RDWR);\n"),
        FileKind::Directory => format!("    int fd_{name} = open(\".\", O_RDONLY | O_DIRECTORY);\n"),
        FileKind::Pipe => format!("    int both[2];\n    pipe(both);\n    int fd_{name} = both[0];\n"),
    }
}

fn statement(index: usize, step: &Step) -> String {
    let args: Vec<String> = step.used_args().iter().map(|arg| argument(*arg)).collect();
    let args = args.join(", ");
    let syscall = |name: &str, args: &str| format!("r[{index}] = answer({index}, syscall(SYS_{name}, {args}));");
    match step.call {
        Call::State => "state();".to_owned(),
        Call::Read => format!("touch({index}, {args}, -1);"),
        Call::Write => format!("touch({index}, {args} & 0xff);"),
        Call::Limit => format!("r[{index}] = answer({index}, limit({args}));"),
        // Older C libraries have no name for it.
        Call::Mseal => format!("r[{index}] = answer({index}, syscall({SYS_MSEAL}, {args}));"),
        Call::Mdwe => syscall("prctl", &format!("{args}, 0, 0")),
        Call::Thread | Call::Fork | Call::Twin | Call::Vfork => String::new(),
        Call::Resize => syscall("ftruncate", &args),
        Call::Allocate => syscall("fallocate", &args),
        Call::NewMemfd => {
            format!("r[{index}] = answer({index}, ftruncate(fd_fresh = memfd_create(\"fresh\", 0), {args}));")
        }
        Call::FileWrite
        | Call::FileRead
        | Call::Load
        | Call::Store
        | Call::CopyOut
        | Call::CopyIn
        | Call::VmRead
        | Call::Execute
        | Call::Storm => {
            let name = match step.call {
                Call::FileWrite => "pwrite_",
                Call::FileRead => "pread_",
                call => call.name(),
            };
            format!("{name}({index}, {args});")
        }
        Call::Munlockall => syscall("munlockall", "0"),
        Call::RemapPages => syscall("remap_file_pages", &args),
        Call::ProcessMadvise => format!("r[{index}] = answer({index}, advise({args}));"),
        Call::Seal => format!("r[{index}] = answer({index}, fcntl(fd_sealable, F_ADD_SEALS, {args}));"),
        Call::Mincore => syscall("mincore", &format!("{args}, residence")),
        Call::Shmat => syscall("shmat", &format!("segment, {args}")),
        Call::NameAnonymous => syscall("prctl", &format!("PR_SET_VMA, PR_SET_VMA_ANON_NAME, {args}, \"oracle\"")),
        Call::DropCapabilities => syscall("capset", "(unsigned[]){0x20080522, 0}, (unsigned[]){0, 0, 0, 0, 0, 0}"),
        call => syscall(call.name(), &args),
    }
}

fn argument(arg: Arg) -> String {
    match arg {
        Arg::Value(value) => format!("{value:#x}UL"),
        Arg::File(kind) => format!("fd_{}", kind.name()),
        Arg::At(base, delta) => {
            let base = match base {
                Base::Window => format!("{WINDOW:#x}UL"),
                Base::Break => "syscall(SYS_brk, 0)".to_owned(),
                Base::Answer(step) => format!("r[{step}]"),
            };
            format!("{base} {} {:#x}UL", if delta < 0 { '-' } else { '+' }, delta.unsigned_abs())
        }
    }
}
