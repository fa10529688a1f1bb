//! What the log says, and how many checks have passed.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::serial;

static PASSED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// A line of the log.
macro_rules! log {
    ($($text:tt)*) => { $crate::serial::line(format_args!($($text)*)) };
}

/// Something worth knowing.
macro_rules! note {
    ($($text:tt)*) => { $crate::serial::line(format_args!("  --  {}", format_args!($($text)*))) };
}

pub(crate) use {log, note};

/// Counts a check, and says what became of it.
pub(crate) fn report(text: fmt::Arguments<'_>, outcome: Result<(), impl fmt::Display>) {
    match outcome {
        Ok(()) => {
            PASSED.fetch_add(1, Ordering::Relaxed);
            serial::line(format_args!("  ok  {text}"));
        }
        Err(why) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
            serial::line(format_args!("  FAILED  {text}: {why}"));
        }
    }
}

/// Counts a check that a program has made.
pub(crate) fn report_program(program: &str, line: &str) {
    if let Some(text) = line.strip_prefix("ok ") {
        PASSED.fetch_add(1, Ordering::Relaxed);
        serial::line(format_args!("  ok  [{program}] {}", text.trim_start()));
    } else if let Some(text) = line.strip_prefix("FAILED ") {
        FAILED.fetch_add(1, Ordering::Relaxed);
        serial::line(format_args!("  FAILED  [{program}] {}", text.trim_start()));
    } else {
        serial::line(format_args!("      [{program}] {line}"));
    }
}

/// Says something about a program.
pub(crate) fn note_of(program: &str, text: fmt::Arguments<'_>) {
    serial::line(format_args!("      [{program}] {text}"));
}

/// How many checks there were, and how many of them failed.
pub(crate) fn counts() -> (u64, u64) {
    let failed = FAILED.load(Ordering::Relaxed);
    (PASSED.load(Ordering::Relaxed) + failed, failed)
}
