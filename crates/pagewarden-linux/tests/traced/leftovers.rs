//! Processes that outlive the program.

use std::time::{Duration, Instant};

use pagewarden_linux::{OnExit, Verify};

use crate::support::{Case, Seen};

#[test]
fn run_waits_for_daemons() {
    for verify in [Verify::Off, Verify::EachCall] {
        let case = Case::new("daemon 300").with(|options| options.verify = verify);
        assert_eq!(case.seen(), Seen::new(3, "the program ends\nthe daemon ends\n"));
    }
}

#[test]
fn run_kills_daemons_if_asked_to() {
    for verify in [Verify::Off, Verify::EachCall] {
        let case = Case::new("daemon 60000").with(|options| {
            options.verify = verify;
            options.on_exit = OnExit::Kill;
        });
        let started = Instant::now();
        assert_eq!(case.seen(), Seen::new(3, "the program ends\n"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
