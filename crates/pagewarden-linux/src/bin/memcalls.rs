//! The guest of the differential test: runs programs of memory calls from standard input and prints what they
//! answered. With `--under-pagewarden` it runs itself under pagewarden.

use std::io;
use std::process::ExitCode;

use pagewarden_linux::oracle::{compare, guest};

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
fn run_traced() -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
