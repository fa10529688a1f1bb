//! What the command line can say, and its translation into [`RunOptions`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pagewarden::manager::{ForkCharge, NoReserve, Overcommit, Policy, WxPolicy};
use pagewarden_linux::oracle::check::Budget;
use pagewarden_linux::{OnExit, RunOptions, Verify};

use crate::run::status;
use crate::size;

// Each paragraph is one line: clap breaks it where the terminal ends.
const HELP: &str = "\
Examples:
  pagewarden run --commit-limit 512M -- python3 server.py
  pagewarden run --report make -j4
  pagewarden vmmap 1234
  pagewarden check --seconds 600

See 'pagewarden run --help', 'pagewarden vmmap --help' and 'pagewarden check --help' for all options.";

const RUN_HELP: &str = "\
Options of pagewarden stand before PROGRAM; everything after it belongs to the program.

SIZE is a whole number of bytes with an optional unit: 4096, 64K, 512M, 2G, 1T. Units are powers of 1024; KiB, MiB, GiB \
and TiB mean the same.

FILE is a path, emptied before the program starts; - is standard error. Standard input and output belong to the \
program alone; whatever pagewarden prints goes to standard error.

Exit status:
  The program's own. If a signal ends the program, the same signal ends pagewarden (or 128 + its number, if it cannot).
  123  --verify found a difference
  125  pagewarden failed or was called wrongly, or FILE could not be written
  126  PROGRAM is there but cannot be run
  127  PROGRAM was not found

Examples:
  Let malloc fail at 512 MiB instead of being killed; address space stays free:
    pagewarden run --commit-limit 512M -- python3 server.py
  See what each process of a build committed and what it was refused:
    pagewarden run --report make -j4
  No memory that is writable and executable, and a report for a script:
    pagewarden run --wx deny --report-json out.json -- ./untrusted
  Each memory call as a line of JSON:
    pagewarden run --trace calls.jsonl -- sqlite3 :memory: 'select 1'";

const VMMAP_HELP: &str = "\
PROT is as in /proc/PID/maps: read, write, execute, then p for private or s for shared. RESIDENT (RSS) is what is in \
memory, PRIV DIRTY what only this process has and has written to. Sizes are in powers of 1024.

Kinds:
  heap       memory of the program break
  stack      the stack of the first thread
  anonymous  private memory without a file
  reserved   the same, with no access: address space put aside, or a guard
  shared     memory that processes share: anonymous, memfd or System V
  file       a file of a file system
  device     a device or another object of the kernel
  kernel     pages that the kernel gives every process, such as the vdso

With --json, sizes are in bytes, addresses are hexadecimal text, and what the kernel does not tell is null.

The width is that of the terminal (COLUMNS overrides it). If the output is no terminal, names are not shortened.

Exit status:
  0  the map was shown
  1  there is none: no such process, no permission, a kernel thread, a zombie
  2  called wrongly

Examples:
  pagewarden vmmap $$
  pagewarden vmmap 1234 | grep libc
  pagewarden vmmap --json 1234 | jq '.totals[] | {kind, resident}'";

const CHECK_HELP: &str = "\
A program is some forty memory calls, drawn at random close to the edges that earlier calls have made. It runs once on \
the host's kernel and once on pagewarden; values, errors, faults, regions, contents and the break must be the same. \
The same seed makes the same programs everywhere.

A program that differs is made as small as it gets and is printed: each step with both answers, a C program that shows \
it without pagewarden, and the command that repeats it.

Progress is shown if standard error is a terminal. Ctrl-C ends the check with what it has so far.

Exit status:
  0  no difference
  1  there is a difference
  2  called wrongly, or the check could not run

Examples:
  pagewarden check
  pagewarden check --seconds 600 --platform arena
  pagewarden check --seed 42 --calls 1000000 --save difference.c";

#[derive(Parser)]
#[command(
    name = "pagewarden",
    version,
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true, after_help = HELP
)]
/// Run a Linux program under a memory budget, and see the map of its memory
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a program under a memory budget
    #[command(
        override_usage = "pagewarden run [OPTIONS] [--] PROGRAM [ARGS]...",
        after_help = "See --help for sizes, exit status and examples.",
        after_long_help = RUN_HELP
    )]
    Run(RunArgs),
    /// Show the memory map of a live process
    #[command(after_help = "See --help for kinds, exit status and examples.", after_long_help = VMMAP_HELP)]
    Vmmap(VmmapArgs),
    /// Compare pagewarden with this machine's kernel, on random programs of memory calls
    #[command(after_help = "See --help for exit status and examples.", after_long_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Run WebAssembly programs with Linux's memory calls
    #[cfg(feature = "cage")]
    #[command(subcommand)]
    Cage(crate::cage::args::CageCommand),
    /// Run WebAssembly programs with Linux's memory calls (not in this build)
    #[cfg(not(feature = "cage"))]
    #[command(disable_help_flag = true)]
    Cage {
        /// What a build with cages would do
        #[arg(allow_hyphen_values = true, trailing_var_arg = true, hide = true)]
        words: Vec<OsString>,
    },
    /// What a check runs: programs from standard input
    #[command(hide = true)]
    CheckGuest {
        /// The side to run them on
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        side: Vec<OsString>,
    },
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// The program, a path or a name to look up in PATH, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM [ARGS]", hide = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Most committed memory of the whole process tree; past it calls fail with ENOMEM
    ///
    /// Private writable memory counts as soon as it is mapped, touched or not; so do shared anonymous memory, memfds and
    /// System V segments. Address space without access (PROT_NONE) and files that are only read cost nothing.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    commit_limit: Option<u64>,
    /// Most address space of the whole process tree, whether it costs memory or not
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    reserve_limit: Option<u64>,
    /// Most locked memory of the whole process tree
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    lock_limit: Option<u64>,
    /// Most regions of each process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    map_limit: Option<u64>,
}

#[derive(Args)]
#[command(next_help_heading = "Policy")]
struct PolicyArgs {
    /// Memory that is writable and executable, at once or one after the other
    #[arg(long, value_name = "RULE", default_value = "allow")]
    wx: Wx,
    /// What a fork charges for the child's private writable memory
    #[arg(long, value_name = "RULE", default_value = "full")]
    fork_charge: ForkRule,
    /// What a mapping made with MAP_NORESERVE costs
    #[arg(long, value_name = "RULE", default_value = "charge")]
    noreserve: NoReserveRule,
    /// What becomes of processes that outlive PROGRAM
    #[arg(long, value_name = "RULE", default_value = "wait")]
    on_exit: ExitRule,
}

#[derive(Args)]
#[command(next_help_heading = "Reports and checks")]
pub(crate) struct OutputArgs {
    /// Print a summary when the program has ended
    #[arg(long)]
    pub(crate) report: bool,
    /// Write the summary, with every process, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report_json: Option<PathBuf>,
    /// Write each memory call, its plan and its answer as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print the manager's map of each process as it was when the process ended
    #[arg(long)]
    pub(crate) vmmap_at_exit: bool,
    /// Compare the manager's map with the host's after each memory call; the first difference ends the run
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Args)]
pub(crate) struct VmmapArgs {
    /// The number of the process
    #[arg(value_parser = parse_pid)]
    pub(crate) pid: i32,
    /// Write the map as JSON, with every figure that the kernel gives
    #[arg(long, conflicts_with = "wide")]
    pub(crate) json: bool,
    /// Show more columns and whole names, however wide that gets
    #[arg(long)]
    pub(crate) wide: bool,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// How long to go on
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many calls to compare, instead of a time
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// The seed of the first program, to repeat a check; without it, one is drawn
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Where pagewarden's side of the programs runs
    #[arg(long, value_name = "PLATFORM", default_value = "traced")]
    pub(crate) platform: CheckPlatform,
    /// Write the C program of the shortest difference to this file too
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum CheckPlatform {
    /// In a process of its own that is stopped at its memory calls, as by 'pagewarden run'
    Traced,
    /// In an arena, a piece of a process's own address space; the kernel's side runs in a process that has no other
    /// room either, so addresses are the same
    Arena,
    /// On a machine in software, with processors, page tables and frames of memory that are all pagewarden's
    Machine,
}

impl CheckArgs {
    /// When there is enough.
    pub(crate) fn budget(&self) -> Budget {
        self.calls.map_or(Budget::Time(Duration::from_secs(self.seconds)), Budget::Calls)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Wx {
    /// As the program likes
    Allow,
    /// Refused with EACCES
    Deny,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ForkRule {
    /// All of it: each page can be written later
    Full,
    /// Nothing: the budget may be overrun by copies
    None,
}

impl ForkRule {
    pub(crate) const fn charge(self) -> ForkCharge {
        match self {
            Self::Full => ForkCharge::Full,
            Self::None => ForkCharge::Free,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum NoReserveRule {
    /// As much as any other mapping
    Charge,
    /// Nothing: the program is trusted not to touch more than it may
    Trust,
}

#[derive(Clone, Copy, ValueEnum)]
enum ExitRule {
    /// The run lasts until they have ended
    Wait,
    /// They are killed
    Kill,
}

impl RunArgs {
    /// What the library is asked to do.
    pub(crate) fn options(&self) -> RunOptions {
        let (program, args) =
            self.command.split_first().map(|(program, args)| (program.clone(), args.to_vec())).unzip();
        RunOptions {
            program: program.unwrap_or_default(),
            args: args.unwrap_or_default(),
            commit_limit: self.limits.commit_limit,
            reserve_limit: self.limits.reserve_limit,
            lock_limit: self.limits.lock_limit,
            map_limit: self.limits.map_limit,
            policy: self.policy.policy(),
            verify: if self.output.verify { Verify::EachCall } else { Verify::Off },
            on_exit: match self.policy.on_exit {
                ExitRule::Wait => OnExit::Wait,
                ExitRule::Kill => OnExit::Kill,
            },
            keep_maps: self.output.vmmap_at_exit,
        }
    }
}

impl PolicyArgs {
    const fn policy(&self) -> Policy {
        Policy {
            wx: match self.wx {
                Wx::Allow => WxPolicy::Allow,
                Wx::Deny => WxPolicy::Deny,
            },
            no_reserve: match self.noreserve {
                NoReserveRule::Charge => NoReserve::Charged,
                NoReserveRule::Trust => NoReserve::Free,
            },
            fork_charge: self.fork_charge.charge(),
            // The host's own rule is all there is.
            overcommit: Overcommit::Always,
        }
    }
}

fn parse_pid(text: &str) -> Result<i32, &'static str> {
    text.parse().ok().filter(|pid| *pid > 0).ok_or("a process is given by its number, which ps shows")
}

/// The command line, or the status to exit with if it asks for help or makes no sense.
pub(crate) fn parse() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|error| {
        // A closed standard output is no news to whoever closed it.
        let _ = error.print();
        if !error.use_stderr() {
            ExitCode::SUCCESS
        } else if std::env::args_os().nth(1).is_some_and(|command| command == "run" || command == "cage") {
            // Small numbers are for the program to use.
            ExitCode::from(status::OWN_FAILURE)
        } else {
            ExitCode::from(2)
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn options(words: &[&str]) -> RunOptions {
        let words = ["pagewarden", "run"].iter().chain(words);
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Run(asked)) => asked.options(),
            Ok(_) => panic!("not a run"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refused(words: &[&str]) -> String {
        Cli::try_parse_from(["pagewarden"].iter().chain(words)).err().map(|error| error.to_string()).unwrap()
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_nothing_is_limited() {
        let options = options(&["true"]);
        assert_eq!(options.program, "true");
        assert!(options.args.is_empty());
        assert_eq!(
            [options.commit_limit, options.reserve_limit, options.lock_limit, options.map_limit],
            [None, None, None, None]
        );
        assert_eq!((options.verify, options.on_exit, options.keep_maps), (Verify::Off, OnExit::Wait, false));
        assert_eq!(options.policy.wx, WxPolicy::Allow);
        assert_eq!(options.policy.no_reserve, NoReserve::Charged);
        assert_eq!(options.policy.fork_charge, ForkCharge::Full);
    }

    #[test]
    fn every_option_reaches_the_library() {
        let options = options(&[
            "--commit-limit",
            "512M",
            "--reserve-limit=1T",
            "--lock-limit",
            "64K",
            "--map-limit",
            "100",
            "--wx",
            "deny",
            "--fork-charge",
            "none",
            "--noreserve",
            "trust",
            "--on-exit",
            "kill",
            "--verify",
            "--vmmap-at-exit",
            "--",
            "a",
        ]);
        assert_eq!(
            [options.commit_limit, options.reserve_limit, options.lock_limit, options.map_limit],
            [Some(512 << 20), Some(1 << 40), Some(64 << 10), Some(100)]
        );
        assert_eq!((options.verify, options.on_exit, options.keep_maps), (Verify::EachCall, OnExit::Kill, true));
        assert_eq!(options.policy.wx, WxPolicy::Deny);
        assert_eq!(options.policy.no_reserve, NoReserve::Free);
        assert_eq!(options.policy.fork_charge, ForkCharge::Free);
    }

    #[test]
    fn a_check_ends_after_a_time_or_some_calls() {
        let asked = |words: &[&str]| match Cli::try_parse_from(["pagewarden", "check"].iter().chain(words)) {
            Ok(Cli { command: Command::Check(asked) }) => asked,
            Ok(_) => panic!("not a check"),
            Err(error) => panic!("{error}"),
        };
        let usual = asked(&[]);
        assert_eq!(usual.budget(), Budget::Time(Duration::from_secs(60)));
        assert_eq!((usual.seed, usual.platform, usual.save), (None, CheckPlatform::Traced, None));
        assert_eq!(asked(&["--seconds", "2"]).budget(), Budget::Time(Duration::from_secs(2)));
        assert_eq!(asked(&["--calls", "5"]).budget(), Budget::Calls(5));
        assert_eq!(asked(&["--seed", "18446744073709551615"]).seed, Some(u64::MAX));
        assert!(refused(&["check", "--calls", "5", "--seconds", "2"]).contains("cannot be used with"));
        assert!(refused(&["check", "--seconds", "0"]).contains("invalid value '0'"));
        assert_eq!(asked(&["--platform", "arena"]).platform, CheckPlatform::Arena);
        assert_eq!(asked(&["--platform", "machine"]).platform, CheckPlatform::Machine);
        assert!(refused(&["check", "--platform", "moon"]).contains("possible values: traced, arena, machine"));
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        for words in [&["prog", "--report", "-x", "--", "y"][..], &["--", "prog", "--report", "-x", "--", "y"]] {
            let options = options(words);
            assert_eq!(options.program, "prog");
            assert_eq!(options.args, ["--report", "-x", "--", "y"]);
        }
        assert_eq!(options(&["--report", "--", "--odd"]).program, "--odd");
        assert_eq!(options(&["prog", "--help"]).args, ["--help"]);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        assert!(refused(&["run", "--bogus", "prog"]).contains("unexpected argument '--bogus'"));
        assert!(refused(&["run"]).contains("PROGRAM"));
        assert!(refused(&["run", "--commit-limit", "0", "x"]).contains("a limit of 0 would let nothing start"));
        assert!(refused(&["run", "--commit-limit", "1.5G", "x"]).contains("1536M for 1.5G"));
        assert!(refused(&["run", "--map-limit", "0", "x"]).contains("invalid value '0'"));
        assert!(refused(&["run", "--wx", "maybe", "x"]).contains("[possible values: allow, deny]"));
        assert!(refused(&["vmmap", "0"]).contains("invalid value '0'"));
        assert!(refused(&["vmmap", "x"]).contains("invalid value 'x' for '<PID>': a process is given by its number"));
        assert!(refused(&["vmmap", "2147483648"]).contains("invalid value '2147483648'"));
        assert!(refused(&["vmmap", "1", "--json", "--wide"]).contains("cannot be used with"));
    }
}
