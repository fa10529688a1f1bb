//! The guest of the differential test: runs programs of memory calls from standard input and prints what they
//! answered. With `--under-pagewarden` it runs itself under pagewarden.

use std::io;
use std::process::ExitCode;

use pagewarden_linux::oracle::{compare, guest};
use pagewarden_linux::{Exit, RunOptions};

fn main() -> ExitCode {
    let traced = std::env::args_os().nth(1).is_some_and(|arg| arg == compare::UNDER_PAGEWARDEN);
    let done = if traced { run_traced() } else { guest::main() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memcalls: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program, without the argument, under pagewarden: to be filled in when the traced platform is there.
/// Runs this very program under pagewarden, with the arguments and the layout that it has without.
fn run_traced() -> io::Result<()> {
    compare::fix_layout()?;
    let program = std::env::args_os().next().unwrap_or_default();
    let outcome =
        pagewarden_linux::run(&RunOptions { program, ..RunOptions::default() }, None).map_err(io::Error::other)?;
    match outcome.exit {
        Exit::Code(0) => Ok(()),
        other => Err(io::Error::other(format!("the guest ended with {other:?}"))),
    }
}
