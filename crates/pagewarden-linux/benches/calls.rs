//! Memory calls answered by an arena, against the same calls made to the host kernel itself.
//!
//! Both sides run in turn within one run; a figure is the median over the rounds of the mean of a batch, in
//! nanoseconds of thread time. With 60,000 regions, both sides have them when it is their turn: two sets at once are
//! more than the host allows a process.

use std::process::ExitCode;

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

/// Nanoseconds that this thread has run.
fn thread_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is alive and has the type of a time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds that `row` takes each time, of `batch` times.
fn measure(row: &Row, calls: &Calls<'_>, batch: u32) -> f64 {
    let what = (row.prepare)(calls);
    (row.act)(calls, what);
    let before = thread_time();
    (0..batch).for_each(|_| (row.act)(calls, what));
    let took = thread_time() - before;
    (row.finish)(calls, what);
    took / f64::from(batch)
}

/// Maps so many regions; each page has other rights than the next. All come from one region that has been written to,
/// as a program's do: to the host they have an owner then (`anon_vma`).
fn fill(calls: &Calls<'_>, regions: u64) -> u64 {
    let at = calls.mmap(regions, RW);
    touch(at, 1);
    for page in (1..regions).step_by(2) {
        calls.mprotect(at + page * PAGE, 1, READ);
    }
    at
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What one row took, each side in each round.
#[derive(Default)]
struct Times {
    host: Vec<f64>,
    arena: Vec<f64>,
}

/// Who answers, and where its times are kept.
type Measured<'a> = (&'a dyn Side, fn(&mut Times) -> &mut Vec<f64>);

fn measure_all(regions: u64, rounds: u32, batch: u32, wanted: &[&Row]) -> Vec<Times> {
    let options = ArenaOptions { size: 4 << 30, ..ArenaOptions::default() };
    let mut times: Vec<Times> = wanted.iter().map(|_| Times::default()).collect();
    let arena = Arena::new(&options).expect("an arena");
    for _ in 0..rounds {
        let sides: [Measured<'_>; 2] = [(&Host, |times| &mut times.host), (&arena, |times| &mut times.arena)];
        for (side, of) in sides {
            let calls = Calls(side);
            let filled = (regions > 1).then(|| fill(&calls, regions));
            for (row, times) in wanted.iter().zip(&mut times) {
                of(times).push(measure(row, &calls, batch));
            }
            if let Some(at) = filled {
                calls.munmap(at, regions);
            }
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
    let row = ROWS.iter().find(|row| row.name == "mremap: move there + back").expect("the row");
    for _ in 0..41 {
        host.push(measure(row, &calls, 400));
        let at = calls.mmap(32, RW);
        touch(at, 4);
        (4..32).step_by(4).for_each(|page| guard(at + page * PAGE));
        let before = thread_time();
        for _ in 0..400 {
            move_to(at, at + 16 * PAGE);
            move_to(at + 16 * PAGE, at);
        }
        least.push((thread_time() - before) / 400.0);
        calls.munmap(at, 32);
    }
    let ratio = median(least.iter().zip(&host).map(|(least, host)| least / host).collect());
    println!("\nmremap without a hole, there + back, host calls alone: {:.0} ns, {ratio:.2} times", median(least));
}

fn main() -> ExitCode {
    println!("Processor time of the thread, medians; a ratio is the median of the ratios of the rounds.\n");
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str()));
    let wanted: Vec<&Row> = ROWS.iter().filter(is_wanted).collect();
    let mut failed = Vec::new();
    println!("| call | regions | host | arena | ratio | goal |");
    println!("|---|--:|--:|--:|--:|---|");
    let both = [(1, 41, 400), (60_000, 9, 1600)].map(|(regions, rounds, batch)| {
        let times = measure_all(regions, rounds, batch, &wanted);
        (regions, times)
    });
    for (at, row) in wanted.iter().enumerate() {
        for (regions, times) in &both {
            let ratio = median(times[at].arena.iter().zip(&times[at].host).map(|(arena, host)| arena / host).collect());
            let (host, arena) = (median(times[at].host.clone()), median(times[at].arena.clone()));
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
