//! The guest of the differential test: runs programs of memory calls from standard input and prints what they
//! answered.

use std::process::ExitCode;

use pagewarden_linux::oracle::guest;

fn main() -> ExitCode {
    match guest::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memcalls: {error}");
            ExitCode::FAILURE
        }
    }
}
