//! The host kernel and pagewarden answer random programs of memory calls alike.
//!
//! `PAGEWARDEN_SEED`, `PAGEWARDEN_CALLS` and `PAGEWARDEN_DIFFERENCES` set the first seed, how many calls are
//! compared at least, and how many kinds of difference are shrunk before the test gives up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/setting.rs"]
mod setting;

use std::process::Command;
use std::time::Duration;

use pagewarden_linux::oracle::c_source::c_source;
use pagewarden_linux::oracle::check::{Budget, Verdict};
use pagewarden_linux::oracle::text::parse_programs;
use pagewarden_linux::oracle::{Arg, Call, Check, Program, Runner, Side, World, check, generate, shrink};
use setting::setting;

const STEPS: usize = 40;
const DEFAULT_CALLS: u64 = 100_000;
/// The machine, and the host in a process that is like one of its own.
const MACHINE: [Side; 2] = [Side::BesideMachine, Side::Machine];
/// The host as a machine, and the host in a process that has as little room.
const HOST_MACHINE: [Side; 2] = [Side::BesideHostMachine, Side::HostMachine];

fn runner() -> (tempfile::TempDir, Runner) {
    let directory = tempfile::tempdir().unwrap();
    let guest = vec![env!("CARGO_BIN_EXE_memcalls").into()];
    let runner = Runner { guest, directory: directory.path().to_owned(), timeout: Duration::from_secs(120) };
    (directory, runner)
}

fn agree(calls: u64, world: World, compare: check::Compare<'_>) {
    let seed = setting("PAGEWARDEN_SEED", 1);
    let calls = setting("PAGEWARDEN_CALLS", calls);
    let most = usize::try_from(setting("PAGEWARDEN_DIFFERENCES", 1)).unwrap();
    let outcomes =
        check::run(&Check { seed, budget: Budget::Calls(calls), steps: STEPS, world, most }, compare, &mut |_| {
            Verdict::GoOn
        })
        .unwrap();
    println!("from seed {seed} on: {outcomes}");
    assert!(outcomes.findings.is_empty(), "{} kinds of difference", outcomes.findings.len());
    assert!(outcomes.calls >= calls);
}

#[test]
fn host_answers_the_same_twice() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS / 10, World::Whole, &|programs| runner.differences([Side::Native, Side::Native], programs));
}

#[test]
fn pagewarden_answers_like_the_host() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS, World::Whole, &|programs| runner.differences([Side::Native, Side::Traced], programs));
}

#[test]
fn an_enclosed_host_answers_the_same_twice() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS / 10, World::Enclosed, &|programs| {
        runner.differences([Side::Enclosed, Side::Enclosed], programs)
    });
}

#[test]
fn an_arena_answers_like_the_host() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS, World::Enclosed, &|programs| runner.differences([Side::Enclosed, Side::Arena], programs));
}

#[test]
fn the_host_beside_the_machine_answers_the_same_twice() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS / 10, World::Enclosed, &|programs| runner.differences([MACHINE[0]; 2], programs));
}

#[test]
fn the_machine_answers_like_the_host() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS, World::Enclosed, &|programs| runner.differences(MACHINE, programs));
}

#[test]
fn the_host_in_32_bits_answers_the_same_twice() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS / 10, World::Narrow, &|programs| runner.differences([HOST_MACHINE[0]; 2], programs));
}

#[test]
fn the_host_machine_answers_like_the_host() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS, World::Narrow, &|programs| runner.differences(HOST_MACHINE, programs));
}

/// Programs on which pagewarden once differed, shrunk.
const ONCE_DIFFERED: &str = "\
mmap w+0x0 0x1000 0x2 0x80003 dir 0x0
end
mmap w+0x0 0x1000 0x0 0x22 none 0x0
mmap 0x0 0x3000 0x0 0x22 none 0x0
mmap 0x0 0x4000 0x0 0x122 rw 0x0
write r2-0x1000 0x0
mmap w+0x0 0x4000 0x0 0x28 none 0x0
end
mmap w+0x6000 0x4000 0x0 0x22 none 0x0
mmap w+0x0 0x7fffd3000 0x1 0x31 none 0x0
mprotect w+0x7000 0x1000 0x1
end
mmap w+0x0 0x7fffce000 0x3 0x54040022 none 0x6000
end
mmap w+0x2c000 0x3000 0x2 0x22 none 0x0
mmap w+0xc000 0x1000 0x2 0x22 none 0x0
mremap w+0xc000 0x1000 0x7fbfd3000 0x3 w+0x25000
write w+0x2e000 0x6d
end
mmap w+0x0 0x1000 0x1 0x2022 none 0x0
mincore w+0x0 0x1000
mmap w+0x1000 0x1000 0x1 0x2021 none 0x0
mincore w+0x1000 0x1000
end
mmap w+0x0 0x1000 0x1 0x22 none 0x0
mlock2 w+0x0 0x2000 0x0
mincore w+0x0 0x1000
end
mmap w+0x0 0xc000 0x1 0x2 sealed 0x0
madvise w+0x0 0xc000 0x66
load w+0xb000 0x40
execute w+0x9000
state
end
twin 0x0
mmap 0xbffecb000 0x6000 0x5 0x12 memfd 0x0
allocate memfd 0x3 0x4000 0x1004
resize memfd 0x1000
end
resize memfd 0x7ffffffffffff07f
end
mmap w+0x1b000 0x5000 0x0 0x1 zero 0x7fffffffffffd000
mremap w+0x1f000 0x0 0x1000 0x1 w+0x0
fork 0x0
end
shmat w+0x1b000 0x0
shmat w+0x23000 0x0
remap_pages w+0x1c000 0x8000 0x0 0x0 0x0
end
mmap w+0xc000 0x4000 0x2 0x22 none 0x0
mmap w+0x0 0x10000 0x0 0x80012 rw 0x0
write w+0xc000 0x0
end
resize memfd 0x7fffde000
end
mlockall 0x2
mmap w+0x3000 0x2000 0x1 0x28 none 0x0
mincore w+0x3000 0x2000
end
fork 0x0
mmap 0xffffcc000 0x12000 0x3 0x12 memfd 0x1000
resize memfd 0x5000
end
mmap w+0x2000 0x1000 0x1 0x122 none 0x0
mlockall 0x1
copy_out w+0x0 0x1
mincore w+0x1000 0x1000
end
mmap w+0x1000 0x1000 0x2 0x1 sealable 0x0
seal 0x10
remap_pages w+0x1000 0x1000 0x0 0x0 0x0
end
mmap w+0x0 0x1000 0x0 0x1 sealable 0x0
seal 0x10
madvise w+0x0 0x2000 0x9
end
mmap w+0x8000 0x9000 0x1 0x22 none 0x0
mlock w+0x8000 0xa000
mremap w+0x8000 0x1000 0x1000 0x3 w+0xf000
mincore w+0xf000 0x1000
end
mmap w+0x7000 0x8000 0x0 0x22 none 0x0
mlock2 w+0xc000 0x2000 0x1
mprotect w+0xa000 0x4000 0x2
mincore w+0xa000 0x3000
end
mmap w+0x7000 0x5000 0x1 0x28 none 0x0
mlockall 0x5
mincore w+0xa000 0x1000
end
mmap 0x0 0x1000 0x0 0x80 zero 0x0
end
";

#[test]
fn what_once_differed_is_the_same_now() {
    let (_directory, runner) = runner();
    let programs = parse_programs(ONCE_DIFFERED).unwrap();
    for sides in [[Side::Native, Side::Traced], [Side::Enclosed, Side::Arena], MACHINE, HOST_MACHINE] {
        let differences = runner.differences(sides, &programs).unwrap();
        assert!(differences.is_empty(), "{sides:?}: {}", differences[0].1);
    }
}

#[test]
fn the_books_of_pagewarden_are_the_hosts() {
    let (_directory, runner) = runner();
    agree(DEFAULT_CALLS / 10, World::Whole, &|programs| runner.differences([Side::Native, Side::Verified], programs));
}

/// Stands for an implementation with a mistake: it unmaps a page too many.
fn with_mistake(program: &Program) -> Program {
    let mut program = program.clone();
    for step in program.steps.iter_mut().filter(|step| step.call == Call::Munmap) {
        if let Arg::Value(len @ 1..0x10_0000) = step.args[1] {
            step.args[1] = Arg::Value(len + 0x1000);
        }
    }
    program
}

#[test]
fn a_mistake_is_found_and_shrunk() {
    let (_directory, runner) = runner();
    let programs: Vec<Program> = (0..20).map(|seed| generate(seed, STEPS)).collect();
    let altered: Vec<Program> = programs.iter().map(with_mistake).collect();
    let right = runner.run(Side::Native, &programs).unwrap();
    let wrong = runner.run(Side::Native, &altered).unwrap();
    let index = (0..programs.len()).find(|index| right[*index] != wrong[*index]).expect("no program shows the mistake");
    let small = shrink(&programs[index], 3000, &mut |candidate| {
        runner.run(Side::Native, std::slice::from_ref(candidate)).unwrap()
            != runner.run(Side::Native, &[with_mistake(candidate)]).unwrap()
    });
    // Four, where it takes a child to show the state.
    assert!(small.steps.len() <= 4, "{small}");
    assert!(small.steps.iter().any(|step| step.call == Call::Munmap), "{small}");
    println!("{small}");
}

/// The answers of a program in C, which are those of the interpreter.
fn answers_in_c(text: &str) -> Vec<String> {
    let program = parse_programs(text).unwrap().remove(0);
    let (directory, runner) = runner();
    let [source, binary] = ["program.c", "program"].map(|name| directory.path().join(name));
    std::fs::write(&source, c_source(&program)).unwrap();
    let compiled = Command::new("cc").arg("-w").arg("-o").args([&binary, &source]).status().unwrap();
    assert!(compiled.success());
    let output = Command::new(&binary).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    // Regions other than the program's own, and how the interpreter reports its children, differ by design.
    let is_answer = |line: &&str| {
        line.starts_with(|first: char| first.is_ascii_digit()) && !line.contains("child") && !line.starts_with("0x")
    };
    let transcript = runner.run(Side::Native, &[program]).unwrap().remove(0);
    let expected: Vec<&str> = transcript.lines.iter().map(String::as_str).filter(is_answer).collect();
    let found: Vec<&str> = printed.lines().filter(is_answer).collect();
    assert_eq!(found, expected);
    found.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_same_program_in_c_answers_the_same() {
    let text = "mmap w+0x1000 0x4000 0x3 0x32 none 0x0\nwrite w+0x1ff8 0x41\nmprotect w+0x2000 0x1000 0x1\n\
                write w+0x2000 0x1\nmremap w+0x1000 0x1000 0x2000 0x3 w+0x8000\nread w+0x8ff8\nmunmap w+0x9001 0x1000\n\
                mmap w+0x20000 0x2000 0x3 0x11 memfd 0xa000\nread w+0x21000\nmmap r7+0x8000 0x1000 0x3 0x11 dir 0x0\n\
                shmat w+0x10000 0x1000\nread w+0x10000\nshmdt r10+0x0\nfork 0x1\nmunmap w+0x0 0x100000\nread w+0x8ff8\n\
                msync w+0x1000 0x1000 0x5\nend\n";
    let found = answers_in_c(text);
    assert_eq!(found.len(), 16);
    assert!(found.iter().any(|line| line == "3 fault signal 11 code 2 at 0x1000002000"), "{found:#?}");
}

#[test]
fn files_copies_and_company_in_c_answer_the_same() {
    let text = "memfd_create 0x3000\nmmap w+0x0 0x3000 0x3 0x11 fresh 0x0\nstore w+0xff0 0x20 0x7\npread fresh 0xfe0 0x40\n\
                pwrite fresh 0x1000 0x1004 0x9\nload w+0xff0 0x1100\nresize fresh 0x1000\nload w+0xff0 0x40\n\
                copy_out w+0xf00 0x200\ncopy_in w+0xf00 0x200 0x5\nvm_read w+0x0 0x2000\nresize fresh 0x3000\n\
                allocate fresh 0x3 0x0 0x1000\nread w+0xff0\nmmap w+0x8000 0x1000 0x3 0x32 none 0x0\nwrite w+0x8008 0xc3\n\
                execute w+0x8008\nmprotect w+0x8000 0x1000 0x5\nexecute w+0x8008\nthread 0x1\nmunmap w+0x8000 0x1000\n\
                storm 0x1234\ntwin 0x3\nwrite w+0x5 0x11\nread w+0x5\nwrite w+0x6 0x12\nread w+0x6\nvfork 0x1\n\
                munmap w+0x0 0x1000\nread w+0x5\nend\n";
    let found = answers_in_c(text);
    let has = |line: &str| assert!(found.iter().any(|found| found == line), "{line} is not in {found:#?}");
    has("7 fault signal 7 code 2 at 0x1000001000");
    has("8 ! EFAULT");
    has("9 ! EFAULT");
    has("16 fault signal 11 code 2 at 0x1000008008");
    has("18 = 0x0");
    has("24 = 0x11");
    has("26 = 0x12");
    has("29 fault signal 11 code 1 at 0x1000000005");
}
