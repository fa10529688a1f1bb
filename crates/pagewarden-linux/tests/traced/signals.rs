//! Signals and stops that meet memory calls.

use pagewarden_linux::Verify;

use crate::support::{Case, Seen, alike};

#[track_caller]
fn done(line: &str) {
    for verify in [Verify::Off, Verify::EachCall] {
        alike(&Case::new(line).with(|options| options.verify = verify), &Seen::new(0, "done\n"));
    }
}

#[test]
fn timer_rings_during_calls() {
    done("alarm_storm");
}

#[test]
fn queued_signals_all_come_in_order() {
    done("queued_storm");
}

#[test]
fn waiting_calls_are_interrupted_or_restarted() {
    done("interrupted_calls");
}

#[test]
fn mask_and_pending_signals_are_the_guests_own() {
    done("signal_mask");
}

#[test]
fn parent_sees_stop_and_continue() {
    done("stops 1");
}

#[test]
fn parent_sees_threads_stop_and_continue() {
    done("stops 3");
}

#[test]
fn program_that_stops_itself_is_continued() {
    done("stopped_itself");
}

#[test]
fn faults_are_handled_by_memory_calls() {
    done("fault_handler");
}
