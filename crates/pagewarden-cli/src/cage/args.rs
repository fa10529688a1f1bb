//! What can be said after `pagewarden cage`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pagewarden::manager::Policy;
use pagewarden_cage::{CageOptions, Directory};

use crate::args::ForkRule;
use crate::size;

const RUN_HELP: &str = "\
Options of pagewarden stand before PROGRAM; everything after it belongs to the program. PROGRAM is a WebAssembly module, or \
the text of one, that exports _start. What it needs of its host is WASI preview 1, and the calls of a cage: mmap, munmap, \
mprotect, mremap, brk, madvise, msync, shmget and its like, fork, clone, wait and exit.

It sees no file and no variable but those that --dir and --env name.

SIZE is a whole number of bytes with an optional unit: 4096, 64K, 512M, 2G. Units are powers of 1024; KiB, MiB, GiB and TiB \
mean the same.

FILE is a path, emptied before the program starts; - is standard error. Whatever pagewarden prints goes to standard error.

The run lasts until all processes have ended. What a process is stopped for is printed with its map: the address, the kind \
of access, and the functions that were active.

Exit status:
  The program's own, or 128 + the number of the signal that a process would die of: 139 for a bad address.
  125  pagewarden failed or was called wrongly, or FILE could not be written
  126  PROGRAM is there but cannot be run
  127  PROGRAM was not found

Examples:
  pagewarden cage run prog.wasm
  pagewarden cage run --commit-limit 64M --report prog.wasm input.txt
  pagewarden cage run --dir data::/data --env LANG=C prog.wasm /data/input.txt";

#[derive(Subcommand)]
pub(crate) enum CageCommand {
    /// Run a WebAssembly program in a cage
    #[command(
        override_usage = "pagewarden cage run [OPTIONS] [--] PROGRAM [ARGS]...",
        after_help = "See --help for sizes, exit status and examples.",
        after_long_help = RUN_HELP
    )]
    Run(CageRunArgs),
}

#[derive(Args)]
pub(crate) struct CageRunArgs {
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    pub(super) world: WorldArgs,
    #[command(flatten)]
    pub(super) output: CageOutputArgs,
    /// The program, a module or the text of one, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM [ARGS]", hide = true)]
    pub(super) command: Vec<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Most committed memory of all processes together; past it calls fail with ENOMEM
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    commit_limit: Option<u64>,
    /// Most address space of all processes together, whether it costs memory or not
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    reserve_limit: Option<u64>,
    /// Most committed memory of each process
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    process_commit_limit: Option<u64>,
    /// Most processes at once; past it fork fails with EAGAIN
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    processes_limit: Option<u32>,
    /// Most of each thread's stack that compiled code uses; the program's own stack is in its memory
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    stack_size: Option<u64>,
    /// What a fork charges for the child's private writable memory
    #[arg(long, value_name = "RULE", default_value = "full")]
    fork_charge: ForkRule,
}

#[derive(Args)]
#[command(next_help_heading = "What the program sees")]
pub(crate) struct WorldArgs {
    /// Let the program use a directory, under the name GUEST if there is one
    #[arg(long = "dir", value_name = "HOST[::GUEST]", value_parser = directory)]
    pub(super) dirs: Vec<Directory>,
    /// Set a variable of its environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, String)>,
}

#[derive(Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct CageOutputArgs {
    /// Print a summary when all processes have ended
    #[arg(long)]
    pub(super) report: bool,
    /// Write the summary, with every process, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) report_json: Option<PathBuf>,
    /// Print the map of each process as it was when the process ended
    #[arg(long)]
    pub(super) vmmap_at_exit: bool,
}

impl CageRunArgs {
    /// What cages may have.
    pub(super) fn options(&self) -> CageOptions {
        let defaults = CageOptions::default();
        let limits = &self.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        CageOptions {
            commit_limit: limits.commit_limit,
            reserve_limit: limits.reserve_limit,
            process_commit_limit: limits.process_commit_limit,
            processes_max: limits.processes_limit.map_or(defaults.processes_max, |most| size(most.into())),
            policy: Policy { fork_charge: limits.fork_charge.charge(), ..defaults.policy },
            stack_bytes: limits.stack_size.map_or(defaults.stack_bytes, size),
            ..defaults
        }
    }
}

fn directory(text: &str) -> Result<Directory, &'static str> {
    let (host, guest) = text.split_once("::").unwrap_or((text, text));
    if host.is_empty() || guest.is_empty() {
        return Err("a directory is given as HOST or as HOST::GUEST, and neither is empty");
    }
    Ok(Directory { host: host.into(), guest: guest.to_owned() })
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is given as NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pagewarden::manager::ForkCharge;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: CageCommand,
    }

    fn parsed(words: &[&str]) -> CageRunArgs {
        let words = ["pagewarden", "run"].iter().chain(words);
        let CageCommand::Run(asked) =
            Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string()).unwrap();
        asked
    }

    #[test]
    fn without_options_nothing_is_limited_and_nothing_is_seen() {
        let asked = parsed(&["a.wasm", "--report"]);
        let options = asked.options();
        assert_eq!([options.commit_limit, options.reserve_limit, options.process_commit_limit], [None; 3]);
        assert_eq!(options.policy.fork_charge, ForkCharge::Full);
        assert_eq!(options.stack_bytes, CageOptions::default().stack_bytes);
        assert!(asked.world.dirs.is_empty() && asked.world.env.is_empty());
        assert_eq!(asked.command, ["a.wasm", "--report"]);
        assert!(!asked.output.report);
    }

    #[test]
    fn each_option_reaches_the_cages() {
        let asked = parsed(&[
            "--commit-limit=64M",
            "--reserve-limit=2G",
            "--process-commit-limit=8M",
            "--processes-limit=7",
            "--stack-size=2M",
            "--fork-charge=none",
            "--dir",
            "a::/b",
            "--dir=c",
            "--env",
            "X=1=2",
            "--",
            "p.wat",
        ]);
        let options = asked.options();
        assert_eq!(options.commit_limit, Some(64 << 20));
        assert_eq!(options.reserve_limit, Some(2 << 30));
        assert_eq!(options.process_commit_limit, Some(8 << 20));
        assert_eq!((options.processes_max, options.stack_bytes), (7, 2 << 20));
        assert_eq!(options.policy.fork_charge, ForkCharge::Free);
        let dirs: Vec<_> =
            asked.world.dirs.iter().map(|dir| (dir.host.to_str().unwrap(), dir.guest.as_str())).collect();
        assert_eq!(dirs, [("a", "/b"), ("c", "c")]);
        assert_eq!(asked.world.env, [("X".to_owned(), "1=2".to_owned())]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--env", "X", "a"][..],
            &["--env", "=1", "a"],
            &["--dir", "", "a"],
            &["--dir", "a::", "a"],
            &["--dir", "::a", "a"],
            &["--processes-limit", "0", "a"],
            &["--commit-limit", "0", "a"],
            &[],
        ] {
            assert!(Cli::try_parse_from(["pagewarden", "run"].iter().chain(words)).is_err(), "{words:?}");
        }
    }
}
