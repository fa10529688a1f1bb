//! Tasks of the repository: `cargo xtask test`, `cargo xtask programs`, `cargo xtask kernel`, `cargo xtask bench`.
//!
//! Owns what has to run besides the unit tests of the crates. Outside: how a crate tests itself.
mod bench;
mod concurrency;
mod job;
mod kernel;
mod lab;
mod packages;
mod programs;
mod step;
mod test;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Tasks of the pagewarden repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that must pass: format, lints, unit tests, real programs, documentation, tidiness.
    Test,
    /// Run real programs natively and under pagewarden, and compare.
    Programs(ProgramsArgs),
    /// Build the small kernel, boot it in QEMU and print what it says.
    Kernel(kernel::KernelArgs),
    /// Check the rules that no compiler checks.
    Tidy,
    /// Small cases of threads in every order (loom), larger ones in many (shuttle).
    Interleavings,
    /// Many threads under ThreadSanitizer; needs the source of std.
    Sanitizer,
    /// Measure.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// What `pagewarden run` costs real programs, as ratios to the same programs without it.
    Run(BenchArgs),
    /// Memory calls in an arena, in this process, against the host kernel's own; takes parts of names of rows.
    Calls(PassedOn),
    /// The map of regions against its peers, in nanoseconds of thread time.
    #[command(disable_help_flag = true)]
    Vmmap(PassedOn),
    /// Frames, page tables, faults and forks against their peers, in nanoseconds of thread time.
    #[command(disable_help_flag = true)]
    Pager(PassedOn),
    /// Charges, look-ups of handles and objects in address spaces, in nanoseconds of thread time.
    #[command(disable_help_flag = true)]
    Capabilities(PassedOn),
    /// Accesses to memory that somebody else also touches, windows and reservations, in nanoseconds of thread time.
    #[command(disable_help_flag = true)]
    Phys(PassedOn),
    /// Cages: forks, lives, computation, and how much memory many of them take.
    #[command(disable_help_flag = true)]
    Cages(PassedOn),
    /// Instructions that the map of regions takes, against the recorded ones; needs valgrind.
    Instructions {
        /// Record the counts instead of comparing them.
        #[arg(long)]
        record: bool,
    },
}

/// What the program that does the work is given.
#[derive(Args)]
pub(crate) struct PassedOn {
    /// Options; `--help` tells them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// What to run, and with what.
#[derive(Args, Default)]
pub(crate) struct ProgramsArgs {
    /// Only the cases whose name contains one of these.
    names: Vec<String>,
    /// Print the names of the cases and stop.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    subject: Subject,
}

/// How often and with what to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// At least so many rounds for each row, time permitting; one round is a run without and a run with pagewarden.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only the rows whose name contains one of these.
    names: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

/// What stands in front of a program.
#[derive(Args, Default)]
pub(crate) struct Subject {
    /// Run nothing in front: native against native, which shows that the cases themselves are sound.
    #[arg(long, conflicts_with = "binary")]
    native: bool,
    /// This `pagewarden` instead of a fresh release build.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Programs(args) => programs::run(&args),
        Task::Kernel(args) => kernel::run(&args),
        Task::Tidy => tidy::run(),
        Task::Interleavings => concurrency::run_interleavings(),
        Task::Sanitizer => concurrency::run_sanitizer(),
        Task::Bench { what: Bench::Run(args) } => bench::run::run(&args),
        Task::Bench { what: Bench::Calls(args) } => bench::calls::run(&args),
        Task::Bench { what: Bench::Cages(args) } => bench::calls::run_cages(&args),
        Task::Bench { what: Bench::Vmmap(args) } => bench::vmmap::run(&args),
        Task::Bench { what: Bench::Pager(args) } => bench::pager::run("pager", &args),
        Task::Bench { what: Bench::Capabilities(args) } => bench::pager::run("capabilities", &args),
        Task::Bench { what: Bench::Phys(args) } => bench::pager::run("phys", &args),
        Task::Bench { what: Bench::Instructions { record: true } } => bench::instructions::record(),
        Task::Bench { what: Bench::Instructions { record: false } } => bench::instructions::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top folder of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
