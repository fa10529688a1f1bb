//! C programs, compiled by `guest/pagewarden-cc`, in cages. Those that are not about cages alone are built for the host
//! too, and must say the same there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as HostStdio};
use std::time::{Duration, Instant};
use std::{env, fs, io::Write, thread};

use pagewarden::Resource;
use pagewarden::manager::Access;
use pagewarden_cage::{CageOptions, CageTrap, Cages, Directory, Exit, Kept, Setup, Stdio, TrapKind};

const MIB: u64 = 1 << 20;

/// What a program is given, in a cage and on the host.
#[derive(Clone, Copy, Default)]
struct Given<'a> {
    args: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    input: &'a str,
}

/// What became of it in a cage.
struct Outcome {
    exit: Exit,
    output: String,
    errors: String,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn compiler() -> PathBuf {
    source("guest/pagewarden-cc")
}

#[track_caller]
fn run_compiler(compiler: impl AsRef<OsStr>, args: &[&OsStr]) {
    let output = Command::new(&compiler).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", compiler.as_ref().display());
    assert_eq!(errors, "", "warnings");
}

/// Builds a program for cages, with a stack of 8 MiB as on the host.
#[track_caller]
fn built(folder: &Path, name: &str, flags: &[&str]) -> Vec<u8> {
    let module = folder.join("guest.wasm");
    let source = source(name);
    let always = ["-Wall", "-Wextra", "-Wl,-z,stack-size=8388608", "-o"];
    let flags: Vec<&OsStr> = flags.iter().chain(&always).map(OsStr::new).collect();
    run_compiler(compiler(), &[&flags[..], &[module.as_ref(), source.as_ref()]].concat());
    fs::read(module).unwrap()
}

/// Enough for recursion as deep as on a host's 8 MiB.
fn options() -> CageOptions {
    CageOptions { stack_bytes: 32 << 20, ..CageOptions::default() }
}

/// Runs a module in `folder` until it and all its children have ended; they must leave nothing.
#[track_caller]
fn run_in_cage(options: &CageOptions, module: &[u8], folder: &Path, given: Given<'_>) -> Outcome {
    let cages = Cages::new(options).unwrap();
    let frames = cages.memory().usage().frames;
    let program = cages.load(module, "guest").unwrap();
    let (output, errors) = (Kept::new(1 << 20), Kept::new(1 << 20));
    let setup = Setup {
        args: ["guest"].iter().chain(given.args).map(|arg| (*arg).to_owned()).collect(),
        env: given.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        dirs: vec![Directory { host: folder.into(), guest: "/".into() }],
        stdio: Stdio::Kept { input: given.input.into(), output: output.clone(), errors: errors.clone() },
        ..Setup::default()
    };
    let exit = cages.start(&program, setup).unwrap().run().unwrap();
    let text = |kept: &Kept| String::from_utf8(kept.contents()).unwrap();
    let (output, errors) = (text(&output), text(&errors));
    let deadline = Instant::now() + Duration::from_secs(20);
    while cages.processes() > 0 {
        assert!(Instant::now() < deadline, "{} processes are left; {output}", cages.processes());
        thread::sleep(Duration::from_millis(1));
    }
    drop(program);
    for resource in [Resource::Committed, Resource::Virtual] {
        assert_eq!(cages.account().used(resource), 0, "{resource:?}");
    }
    let usage = cages.memory().usage();
    assert_eq!((usage.frames, usage.mappings), (frames, 0));
    Outcome { exit, output, errors }
}

/// What a program says on the host, where it must succeed.
#[track_caller]
fn said_by_host(name: &str, given: Given<'_>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("host-program");
    let source = source(name);
    let flags = ["-O2", "-Wall", "-Wextra", "-o"].map(OsStr::new);
    run_compiler("cc", &[&flags[..], &[program.as_ref(), source.as_ref()]].concat());
    let mut host = Command::new(&program);
    host.args(given.args).envs(given.env.iter().copied()).current_dir(folder.path());
    let mut host = host.stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().unwrap();
    host.stdin.take().unwrap().write_all(given.input.as_bytes()).unwrap();
    let output = host.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "on the host: {} {text}", output.status);
    text
}

#[track_caller]
fn says_the_same_as_on_the_host(name: &str, given: Given<'_>) {
    compiled_so_it_says_the_same(&["-O2"], name, given);
}

#[track_caller]
fn compiled_so_it_says_the_same(flags: &[&str], name: &str, given: Given<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let module = built(folder.path(), name, flags);
    let outcome = run_in_cage(&options(), &module, folder.path(), given);
    assert_eq!(outcome.output, said_by_host(name, given), "{outcome:?}", outcome = outcome.exit);
    assert_eq!((outcome.exit.shell_code(), outcome.errors.as_str()), (0, ""), "{:?}", outcome.exit.trap);
}

/// What a program says that is for cages alone.
#[track_caller]
fn said_in_cage(name: &str, options: &CageOptions) -> String {
    let folder = tempfile::tempdir().unwrap();
    let module = built(folder.path(), name, &["-O2"]);
    let outcome = run_in_cage(options, &module, folder.path(), Given::default());
    assert_eq!(outcome.exit.shell_code(), 0, "{:?} {} {}", outcome.exit.trap, outcome.output, outcome.errors);
    outcome.output
}

#[test]
fn a_heap_under_load_keeps_every_byte() {
    says_the_same_as_on_the_host("guest/programs/churn.c", Given::default());
}

#[test]
fn patterns_of_maps_come_out_as_on_the_host() {
    says_the_same_as_on_the_host("guest/programs/maps.c", Given::default());
}

#[test]
fn the_break_stops_before_its_neighbours_as_on_the_host() {
    says_the_same_as_on_the_host("guest/programs/heap_neighbours.c", Given::default());
}

#[test]
fn memory_is_shared_over_forks_as_on_the_host() {
    says_the_same_as_on_the_host("guest/programs/shared.c", Given::default());
}

#[test]
fn trees_of_processes_grow_and_end_as_on_the_host() {
    says_the_same_as_on_the_host("guest/programs/tree.c", Given::default());
}

#[test]
fn private_memory_is_each_ones_own_after_a_fork() {
    says_the_same_as_on_the_host("guest/programs/isolation.c", Given::default());
}

#[test]
fn memory_without_rights_is_carried_over_forks() {
    says_the_same_as_on_the_host("guest/programs/closed.c", Given::default());
}

#[test]
fn forks_deep_in_a_recursion_come_back_through_all_frames() {
    says_the_same_as_on_the_host("guest/programs/deep.c", Given::default());
}

#[test]
fn processes_exchange_messages_through_shared_rings() {
    says_the_same_as_on_the_host("guest/programs/messages.c", Given::default());
}

#[test]
fn processes_keep_their_books_while_they_map_and_fork_at_random() {
    says_the_same_as_on_the_host("guest/programs/stress.c", Given { args: &["1"], ..Given::default() });
}

#[test]
fn files_and_streams_read_and_write_any_memory() {
    let given = Given {
        args: &["some-file", "second"],
        env: &[("GREETING", "hello")],
        input: "to be or not to be\nthat is the question\nwhether tis nobler to be\n",
    };
    says_the_same_as_on_the_host("guest/programs/files.c", given);
}

#[test]
fn the_example_talks_to_its_child() {
    says_the_same_as_on_the_host("examples/shared_page.c", Given::default());
}

#[test]
fn a_heap_grows_up_to_its_neighbours_and_never_over_them() {
    let said = said_in_cage("guest/programs/grow.c", &options());
    assert_eq!(said.lines().count(), 5, "{said}");
}

#[test]
fn a_program_over_its_budget_gets_enomem_and_goes_on() {
    // A fork's buffer is as large as the stack while it is filled; the child must not pay for all of that too.
    let limited = CageOptions { commit_limit: Some(32 * MIB), stack_bytes: 3 << 20, ..CageOptions::default() };
    let said = said_in_cage("guest/programs/budget.c", &limited);
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.contains("with less, a fork has enough: exit 105\n"), "{said}");
}

#[test]
fn a_program_that_is_not_built_for_fork_can_clone() {
    let said = said_in_cage("guest/programs/clone.c", &options());
    let sums = (0..4).map(|branch| (0..3).map(|leaf| (2 + branch) * 100 + branch * 4 + leaf).sum::<i32>());
    let sums: String = sums.map(|sum| format!("{sum} ")).collect();
    assert_eq!(said, format!("{sums}and 1 here\nno such function: EINVAL\n"));
}

#[test]
fn forks_and_clones_mix() {
    let said = said_in_cage("guest/programs/mixed.c", &CageOptions { processes_max: 16, ..options() });
    let expected = [
        "forks in a clone: exit 16, 11, 117",
        "a clone in a fork: exit 100",
        "a child has sorted",
        "its parent has sorted",
        "the 16th child: EAGAIN; and when they have gone: exit 6",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// As newer compilers do by themselves: copies and fills are single instructions, also of memory that was never touched.
#[test]
fn programs_with_newer_instructions_say_the_same() {
    let flags = ["-O3", "-mbulk-memory", "-msimd128", "-msign-ext", "-mnontrapping-fptoint"];
    for name in ["guest/programs/messages.c", "guest/programs/isolation.c", "guest/programs/churn.c"] {
        compiled_so_it_says_the_same(&flags, name, Given::default());
    }
}

#[test]
fn programs_that_are_not_optimized_say_the_same() {
    for name in ["guest/programs/deep.c", "guest/programs/shared.c"] {
        compiled_so_it_says_the_same(&["-O0", "-g"], name, Given::default());
    }
}

/// Nothing of ours is in it: malloc grows the Wasm memory, and there is no stack below the data.
#[test]
fn a_module_of_a_bare_clang_runs_too() {
    let name = "guest/programs/churn.c";
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("bare.wasm");
    let source = source(name);
    let flags = ["--target=wasm32-wasi", "-Wl,--global-base=65536", "-o"].map(OsStr::new);
    run_compiler("clang", &[&flags[..], &[module.as_ref(), source.as_ref()]].concat());
    let outcome = run_in_cage(&CageOptions::default(), &fs::read(module).unwrap(), folder.path(), Given::default());
    assert_eq!(outcome.output, said_by_host(name, Given::default()), "{:?}", outcome.exit.trap);
}

/// How the program of faults ends, with where its map was.
#[track_caller]
fn fault(how: &str) -> (Exit, u64) {
    let folder = tempfile::tempdir().unwrap();
    let module = built(folder.path(), "guest/programs/faults.c", &["-O2"]);
    let given = Given { args: &[how], ..Given::default() };
    let outcome = run_in_cage(&CageOptions::default(), &module, folder.path(), given);
    let map = outcome.output.trim_end().strip_prefix("map at 0x").unwrap_or_else(|| panic!("{}", outcome.output));
    (outcome.exit, u64::from_str_radix(map, 16).unwrap())
}

#[track_caller]
fn trap(how: &str) -> (CageTrap, u64) {
    let (exit, map) = fault(how);
    (*exit.trap.unwrap(), map)
}

#[test]
fn the_end_of_a_program_that_does_not_trap_is_its_own() {
    assert_eq!(fault("exit").0.code, 33);
    assert_eq!(fault("none").0.shell_code(), 0);
}

#[test]
fn a_stray_store_is_reported_with_its_address_region_and_function() {
    let (null, _) = trap("null");
    assert_eq!((&null.kind, null.address, null.access), (&TrapKind::Hole, Some(0), Some(Access::Write)));
    assert!(null.backtrace.contains("store") && null.backtrace.contains("main"), "{}", null.backtrace);
    assert_eq!((null.region.as_ref(), null.signal()), (None, 11));

    let (hole, map) = trap("hole");
    assert_eq!((&hole.kind, hole.address, hole.access), (&TrapKind::Hole, Some(map + 4096 + 16), Some(Access::Write)));

    for how in ["read-only", "closed"] {
        let (trap, map) = trap(how);
        assert_eq!((&trap.kind, trap.address, trap.access), (&TrapKind::Rights, Some(map + 8), Some(Access::Write)));
        let rights = if how == "closed" { "---p" } else { "r--p" };
        let region = trap.region.unwrap();
        assert!(region.starts_with(&format!("{map:08x}-{:08x} {rights}", map + 4096)), "{region}");
    }

    let (top, _) = trap("top");
    assert_eq!((&top.kind, top.address), (&TrapKind::Hole, Some(0xffff_fffe)));
}

#[test]
fn other_ends_are_told_apart() {
    let kinds = ["stack", "division", "abort"].map(|how| trap(how).0.kind);
    assert_eq!(kinds, [TrapKind::StackOverflow, TrapKind::Arithmetic, TrapKind::Unreachable]);
    let (wrong, _) = trap("type");
    assert_eq!(wrong.signal(), 6, "{wrong:?}");
}

/// A stack of C that is smaller than that of Wasm overflows into the page of NULL.
#[test]
fn a_stack_of_c_that_overflows_meets_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("guest.wasm");
    let source = source("guest/programs/faults.c");
    let flags = ["-O2", "-Wl,-z,stack-size=65536", "-o"].map(OsStr::new);
    run_compiler(compiler(), &[&flags[..], &[module.as_ref(), source.as_ref()]].concat());
    let given = Given { args: &["stack"], ..Given::default() };
    let outcome = run_in_cage(&CageOptions::default(), &fs::read(module).unwrap(), folder.path(), given);
    let trap = outcome.exit.trap.unwrap();
    assert_eq!((&trap.kind, trap.access), (&TrapKind::Hole, Some(Access::Write)));
    assert!(trap.address.unwrap() < 4096, "{trap:?}");
}

/// A folder with all programs of this machine but one.
fn tools_without(folder: &Path, missing: &str) -> PathBuf {
    let tools = folder.join("tools");
    fs::create_dir(&tools).unwrap();
    for entry in env::split_paths(&env::var_os("PATH").unwrap()).filter_map(|path| path.read_dir().ok()).flatten() {
        let entry = entry.unwrap();
        let link = tools.join(entry.file_name());
        if entry.file_name() != missing && fs::symlink_metadata(&link).is_err() {
            symlink(entry.path(), link).unwrap();
        }
    }
    tools
}

/// What the compiler says where a program is missing.
#[track_caller]
fn complaint(missing: &str, program: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (tools, module) = (tools_without(folder.path(), missing), folder.path().join("out.wasm"));
    let mut command = Command::new(compiler());
    command.env("PATH", tools).arg("-O1").arg(source(program)).arg("-o").arg(&module);
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), module.exists()), (Some(1), false));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_compiler_names_the_package_that_is_missing() {
    let forks = "guest/programs/closed.c";
    for (program, package) in [("clang", "clang"), ("wasm-ld", "lld"), ("wasm-opt", "binaryen")] {
        let expected = format!("pagewarden-cc: {program} is not installed (Debian package {package})\n");
        assert_eq!(complaint(program, forks), expected);
    }
}

#[test]
fn the_compiler_takes_names_with_blanks_objects_and_several_sources() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("one part.c"), "int other(int); int main(void) { return other(MORE) != 42; }").unwrap();
    fs::write(
        at("two.c"),
        "#include <unistd.h>\nint third(void); int other(int n) { return n + third() - getppid(); }",
    )
    .unwrap();
    fs::write(at("three.c"), "int third(void) { return 2; }").unwrap();
    let word = |name: &str| at(name).into_os_string();
    let (object, module) = (word("three o.o"), word("out put.wasm"));
    run_compiler(compiler(), &["-c".as_ref(), &word("three.c"), "-o".as_ref(), &object]);
    let sources = [word("one part.c"), word("two.c")];
    let flags = ["-D", "MORE=40", "-O2", "-g", "-o"].map(OsStr::new);
    run_compiler(compiler(), &[&flags[..], &[&module, &sources[0], &sources[1], &object]].concat());
    let module = fs::read(module).unwrap();
    let outcome = run_in_cage(&CageOptions::default(), &module, folder.path(), Given::default());
    assert_eq!(outcome.exit.shell_code(), 0, "{:?}", outcome.exit);
}

#[test]
fn a_compiler_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.c"), "int main(void) { return nothing; }").unwrap();
    let mut command = Command::new(compiler());
    command
        .env("TMPDIR", folder.path())
        .arg(folder.path().join("wrong.c"))
        .arg("-o")
        .arg(folder.path().join("out.wasm"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong.c:1:25"));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["wrong.c"]);
}
