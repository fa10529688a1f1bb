//! The guest of the differential test between cages and the host: as `memcalls` of `pagewarden-linux`, with cages for the
//! processes of programs.

mod hardware;

use std::process::ExitCode;

use pagewarden_linux::oracle::guest;

use hardware::CageHardware;

fn main() -> ExitCode {
    match guest::main_with(&|config| Ok(Box::new(CageHardware::new(config)?))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memcalls_in_cages: {error}");
            ExitCode::FAILURE
        }
    }
}
