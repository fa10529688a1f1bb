//! The `pagewarden` command: run a program under a memory budget, show the map of a process, and compare pagewarden
//! with the host's kernel.
//!
//! [`args`] says what can be asked for; [`run`], [`vmmap`] and [`check`] do it, and `cage` if it was built in; [`report`] and
//! [`trace`] write down what a run did. All policy is in the libraries: nothing here decides about memory.
#![forbid(unsafe_code)]

mod args;
#[cfg(feature = "cage")]
mod cage;
mod check;
mod report;
mod run;
mod size;
mod style;
mod trace;
mod vmmap;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse() {
        Ok(args::Command::Run(asked)) => run::run(&asked),
        Ok(args::Command::Vmmap(asked)) => vmmap::run(&asked),
        Ok(args::Command::Check(asked)) => check::run(&asked),
        #[cfg(feature = "cage")]
        Ok(args::Command::Cage(cage::args::CageCommand::Run(asked))) => cage::run(&asked),
        #[cfg(not(feature = "cage"))]
        Ok(args::Command::Cage { .. }) => run::without_cages(),
        Ok(args::Command::CheckGuest { .. }) => check::guest(),
        Err(status) => status,
    }
}
