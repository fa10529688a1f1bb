//! Memory calls answered by an arena, against the same calls made to the host kernel itself.
//!
//! Both sides run in turn within one run, a batch of one row each, in nanoseconds of thread time. Each side has a process
//! of its own: two sets of 60,000 regions are more than the host allows one. Both stay on one processor: else what changes
//! rights also waits for the processors that the process was on before.
//!
//! What a region more or less costs the host depends on its neighbours: the node of the tree where they are may be full,
//! and is then split and united again each time. So each round has another number of them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use pagewarden_linux::arena::{Arena, ArenaOptions};

const PAGE: u64 = 4096;
const NONE: u64 = 0;
const READ: u64 = 1;
const RW: u64 = 3;
const PRIVATE: u64 = 0x22;
const NO_RESERVE: u64 = 0x4000;
/// Most that a call may cost, as a part of what it costs the host.
const RATIO_MAX: f64 = 1.25;
/// Most that a call may cost that the host need not be asked for, in nanoseconds.
const ALONE_MAX: f64 = 300.0;
/// How often each side has its turn with each row, and how often it makes the calls of the row in a turn.
const ROUNDS: u32 = 6 * NEIGHBOURS_END;
const BATCH: u32 = 400;
/// Rounds have 0, 1 and so on regions beside those of the row; with so many they begin anew. As many as the host's nodes
/// have slots.
const NEIGHBOURS_END: u32 = 16;

/// Who answers.
trait Side {
    /// The answer to a call; its error number, negated, if it fails.
    fn call(&self, number: libc::c_long, args: [u64; 6]) -> i64;
}

struct Host;

impl Side for Host {
    fn call(&self, number: libc::c_long, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
        // SAFETY: the rows change no mapping but those that they have made.
        unsafe { libc::syscall(number, a, b, c, d, e, f) }
    }
}

impl Side for Arena {
    fn call(&self, number: libc::c_long, args: [u64; 6]) -> i64 {
        match self.syscall(number.cast_unsigned(), args) {
            Ok(value) => value.cast_signed(),
            Err(errno) => -i64::from(errno.raw()),
        }
    }
}

/// Calls that must succeed.
struct Calls<'a>(&'a dyn Side);

impl Calls<'_> {
    fn must(&self, number: libc::c_long, args: [u64; 6]) -> u64 {
        let answer = self.0.call(number, args);
        assert!(answer >= 0, "call {number} with {args:x?}: {answer}");
        answer.cast_unsigned()
    }

    fn mmap(&self, pages: u64, prot: u64) -> u64 {
        self.must(libc::SYS_mmap, [0, pages * PAGE, prot, PRIVATE | NO_RESERVE, u64::MAX, 0])
    }

    fn munmap(&self, addr: u64, pages: u64) {
        self.must(libc::SYS_munmap, [addr, pages * PAGE, 0, 0, 0, 0]);
    }

    fn mprotect(&self, addr: u64, pages: u64, prot: u64) {
        self.must(libc::SYS_mprotect, [addr, pages * PAGE, prot, 0, 0, 0]);
    }

    fn mremap(&self, addr: u64, old: u64, new: u64, target: Option<u64>) -> u64 {
        let flags = libc::MREMAP_MAYMOVE | if target.is_some() { libc::MREMAP_FIXED } else { 0 };
        let target = target.unwrap_or(0);
        self.must(libc::SYS_mremap, [addr, old * PAGE, new * PAGE, flags.unsigned_abs().into(), target, 0])
    }

    fn brk(&self, addr: u64) -> u64 {
        self.must(libc::SYS_brk, [addr, 0, 0, 0, 0, 0])
    }

    fn discard(&self, addr: u64, pages: u64) {
        self.must(libc::SYS_madvise, [addr, pages * PAGE, libc::MADV_DONTNEED.unsigned_abs().into(), 0, 0, 0]);
    }
}

/// Stores a byte in each of `pages` pages.
fn touch(addr: u64, pages: u64) {
    for page in 0..pages {
        let at = usize::try_from(addr + page * PAGE).expect("an address");
        let at: *mut u8 = std::ptr::with_exposed_provenance_mut(at);
        // SAFETY: the rows touch what they have just mapped writable, and nobody has references to it.
        unsafe { at.write_volatile(1) };
    }
}

/// What is done again and again; `prepare` makes what it is done with.
struct Row {
    name: &'static str,
    prepare: fn(&Calls<'_>) -> u64,
    act: fn(&Calls<'_>, u64),
    finish: fn(&Calls<'_>, u64),
    /// Whether the host need not be asked.
    alone: bool,
}

const NOTHING: Row = Row { name: "", prepare: |_| 0, act: |_, _| (), finish: |_, _| (), alone: false };

/// Sixteen writable pages, the last twelve of which are unmapped again.
fn four_with_room(calls: &Calls<'_>) -> u64 {
    let at = calls.mmap(16, RW);
    calls.munmap(at + 4 * PAGE, 12);
    touch(at, 4);
    at
}

const ROWS: &[Row] = &[
    Row {
        name: "mmap + touch + munmap of a page",
        act: |calls, _| {
            let at = calls.mmap(1, RW);
            touch(at, 1);
            calls.munmap(at, 1);
        },
        ..NOTHING
    },
    Row {
        name: "mmap + touch + munmap of 16 pages",
        act: |calls, _| {
            let at = calls.mmap(16, RW);
            touch(at, 16);
            calls.munmap(at, 16);
        },
        ..NOTHING
    },
    Row {
        name: "mprotect: split + merge",
        prepare: |calls| {
            let at = calls.mmap(16, RW);
            touch(at, 16);
            at
        },
        act: |calls, at| {
            calls.mprotect(at + 7 * PAGE, 1, READ);
            calls.mprotect(at + 7 * PAGE, 1, RW);
        },
        finish: |calls, at| calls.munmap(at, 16),
        ..NOTHING
    },
    Row {
        name: "mremap: grow in place + shrink",
        prepare: four_with_room,
        act: |calls, at| {
            calls.mremap(at, 4, 8, None);
            calls.mremap(at, 8, 4, None);
        },
        finish: |calls, at| calls.munmap(at, 4),
        ..NOTHING
    },
    Row {
        name: "mremap: grow in place + touch + shrink",
        prepare: four_with_room,
        act: |calls, at| {
            calls.mremap(at, 4, 8, None);
            touch(at + 4 * PAGE, 4);
            calls.mremap(at, 8, 4, None);
        },
        finish: |calls, at| calls.munmap(at, 4),
        ..NOTHING
    },
    Row {
        name: "mremap: move there + back",
        prepare: |calls| {
            let at = calls.mmap(32, RW);
            touch(at, 4);
            calls.munmap(at + 4 * PAGE, 28);
            at
        },
        act: |calls, at| {
            calls.mremap(at, 4, 4, Some(at + 16 * PAGE));
            calls.mremap(at + 16 * PAGE, 4, 4, Some(at));
        },
        finish: |calls, at| calls.munmap(at, 4),
        ..NOTHING
    },
    Row {
        name: "mmap + touch + mremap: grow elsewhere + munmap",
        act: |calls, _| {
            let at = calls.mmap(4, RW);
            touch(at, 4);
            let at = calls.mremap(at, 4, 8, None);
            calls.munmap(at, 8);
        },
        ..NOTHING
    },
    Row {
        name: "brk: up + down",
        prepare: |calls| calls.brk(0),
        act: |calls, at| {
            calls.brk(at + PAGE);
            calls.brk(at);
        },
        ..NOTHING
    },
    Row {
        name: "brk: up + touch + down",
        prepare: |calls| calls.brk(0).next_multiple_of(PAGE),
        act: |calls, at| {
            calls.brk(at + PAGE);
            touch(at, 1);
            calls.brk(at);
        },
        ..NOTHING
    },
    Row {
        name: "madvise(DONTNEED) + touch",
        prepare: |calls| calls.mmap(1, RW),
        act: |calls, at| {
            calls.discard(at, 1);
            touch(at, 1);
        },
        finish: |calls, at| calls.munmap(at, 1),
        ..NOTHING
    },
    Row {
        name: "munmap outside: refused",
        act: |calls, _| {
            refused(calls);
        },
        alone: true,
        ..NOTHING
    },
    Row {
        name: "mmap with a bad word: refused",
        act: |calls, _| {
            calls.0.call(libc::SYS_mmap, [0, PAGE, RW, 0, u64::MAX, 0]);
        },
        alone: true,
        ..NOTHING
    },
    Row {
        name: "mprotect of nothing: refused",
        prepare: |calls| calls.mmap(1, RW),
        act: |calls, at| {
            calls.0.call(libc::SYS_mprotect, [at - PAGE, PAGE, READ, 0, 0, 0]);
        },
        finish: |calls, at| calls.munmap(at, 1),
        alone: true,
    },
    Row {
        name: "mprotect to the same rights",
        prepare: |calls| calls.mmap(1, RW),
        act: |calls, at| calls.mprotect(at, 1, RW),
        finish: |calls, at| calls.munmap(at, 1),
        alone: true,
    },
    Row {
        name: "brk asked for",
        act: |calls, _| {
            calls.brk(0);
        },
        alone: true,
        ..NOTHING
    },
    Row {
        name: "munmap of nothing",
        prepare: |calls| calls.mmap(1, NONE),
        act: |calls, at| calls.munmap(at - 64 * PAGE, 1),
        finish: |calls, at| calls.munmap(at, 1),
        alone: true,
    },
];

fn refused(calls: &Calls<'_>) -> i64 {
    calls.0.call(libc::SYS_munmap, [0x7fff_ffff_f000, PAGE, 0, 0, 0, 0])
}

/// Keeps this process, and those that it starts, on the processor that it is on.
fn stay_here() {
    // SAFETY: a set of no processors is all zero.
    let mut here: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call has no arguments.
    let processor = unsafe { libc::sched_getcpu() };
    // SAFETY: the kernel does not number more processors than a set holds.
    unsafe { libc::CPU_SET(usize::try_from(processor).expect("a processor"), &mut here) };
    // SAFETY: the set is alive and as large as is said.
    let answer = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const here) };
    assert_eq!(answer, 0, "a process may stay where it is");
}

/// Nanoseconds that this thread has run.
fn thread_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is alive and has the type of a time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds that `row` takes each time, beside the neighbours of `round`.
fn measure(row: &Row, calls: &Calls<'_>, round: u32) -> f64 {
    let rights = [READ, NONE].into_iter().cycle();
    let neighbours = rights.take((round % NEIGHBOURS_END).try_into().expect("a few"));
    let neighbours: Vec<u64> = neighbours.map(|prot| calls.mmap(1, prot)).collect();
    let what = (row.prepare)(calls);
    (row.act)(calls, what);
    let before = thread_time();
    (0..BATCH).for_each(|_| (row.act)(calls, what));
    let took = thread_time() - before;
    (row.finish)(calls, what);
    neighbours.into_iter().for_each(|at| calls.munmap(at, 1));
    took / f64::from(BATCH)
}

/// Maps so many regions; each page has other rights than the next. All come from one region that has been written to,
/// as a program's do: to the host they have an owner then (`anon_vma`).
fn fill(calls: &Calls<'_>, regions: u64) {
    if regions == 1 {
        return;
    }
    let at = calls.mmap(regions, RW);
    touch(at, 1);
    for page in (1..regions).step_by(2) {
        calls.mprotect(at + page * PAGE, 1, READ);
    }
}

/// The mean of `values` without the tenth at either end: those were disturbed.
fn usual(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let rare = values.len() / 10;
    let kept = &values[rare..values.len() - rare];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// What one row took, each side in each round.
#[derive(Default)]
struct Times {
    host: Vec<f64>,
    arena: Vec<f64>,
}

/// Says that a process is the host's side; the number of its regions follows.
const HOST_SIDE: &str = "--host-side";

/// The host's side: for each row that it is told of, it tells how long that took.
struct HostSide {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl HostSide {
    fn start(regions: u64) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        command.args([HOST_SIDE, &regions.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the process of the host's side");
        let answers = BufReader::new(process.stdout.take().expect("its answers"));
        Self { process, answers }
    }

    fn measure(&mut self, row: &Row, round: u32) -> f64 {
        let mut questions = self.process.stdin.as_ref().expect("its questions");
        writeln!(questions, "{round} {}", row.name).expect("the host's side listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the host's side answers");
        answer.trim().parse().expect("a number of nanoseconds")
    }

    /// What the process does.
    fn serve(regions: u64) {
        let calls = Calls(&Host);
        fill(&calls, regions);
        for question in std::io::stdin().lines().map_while(Result::ok) {
            let (round, name) = question.split_once(' ').expect("a round and a row");
            println!("{}", measure(row(name), &calls, round.parse().expect("a number")));
        }
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).expect("the row")
}

fn measure_all(regions: u64, wanted: &[&Row]) -> Vec<Times> {
    let mut host = HostSide::start(regions);
    let options = ArenaOptions { size: 4 << 30, ..ArenaOptions::default() };
    let arena = Arena::new(&options).expect("an arena");
    let calls = Calls(&arena);
    fill(&calls, regions);
    let mut times: Vec<Times> = wanted.iter().map(|_| Times::default()).collect();
    for round in 0..ROUNDS {
        for (row, times) in wanted.iter().zip(&mut times) {
            times.host.push(host.measure(row, round));
            times.arena.push(measure(row, &calls, round));
        }
    }
    times
}

/// Says what a move costs by host calls alone that take no mapping away before another is there: mremap that leaves the
/// old place mapped, and guards over that.
fn print_least_move() {
    let calls = Calls(&Host);
    let guard = |addr: u64| {
        calls.must(libc::SYS_madvise, [addr, 4 * PAGE, 102, 0, 0, 0]);
    };
    let move_to = |from: u64, to: u64| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        calls.must(libc::SYS_mremap, [from, 4 * PAGE, 4 * PAGE, flags.unsigned_abs().into(), to, 0]);
        guard(from);
    };
    let (mut host, mut least) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        host.push(measure(row("mremap: move there + back"), &calls, round));
        let at = calls.mmap(32, RW);
        touch(at, 4);
        (4..32).step_by(4).for_each(|page| guard(at + page * PAGE));
        let before = thread_time();
        for _ in 0..BATCH {
            move_to(at, at + 16 * PAGE);
            move_to(at + 16 * PAGE, at);
        }
        least.push((thread_time() - before) / f64::from(BATCH));
        calls.munmap(at, 32);
    }
    let (host, least) = (usual(host), usual(least));
    let ratio = least / host;
    println!("\nmremap without a hole, there + back, host calls alone: {least:.0} ns, {ratio:.2} times");
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != HOST_SIDE).skip(1);
    if let Some(regions) = args.next() {
        HostSide::serve(regions.parse().expect("a number of regions"));
        return ExitCode::SUCCESS;
    }
    stay_here();
    println!("Processor time of the thread, means without the tenth at either end.\n");
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str()));
    let wanted: Vec<&Row> = ROWS.iter().filter(is_wanted).collect();
    let mut failed = Vec::new();
    println!("| call | regions | host | arena | ratio | goal |");
    println!("|---|--:|--:|--:|--:|---|");
    let both = [1, 60_000].map(|regions| (regions, measure_all(regions, &wanted)));
    for (at, row) in wanted.iter().enumerate() {
        for (regions, times) in &both {
            let (host, arena) = (usual(times[at].host.clone()), usual(times[at].arena.clone()));
            let ratio = arena / host;
            let is_met = if row.alone { arena <= ALONE_MAX } else { ratio <= RATIO_MAX };
            let goal = if row.alone { format!("{ALONE_MAX} ns") } else { format!("{RATIO_MAX}") };
            let said = if is_met { "met" } else { "**missed**" };
            println!("| {} | {regions} | {host:.0} ns | {arena:.0} ns | {ratio:.2} | {goal}: {said} |", row.name);
            if !is_met {
                failed.push(format!("{} with {regions} regions", row.name));
            }
        }
    }
    print_least_move();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nGoals that were missed: {}.", failed.join("; "));
    ExitCode::FAILURE
}
