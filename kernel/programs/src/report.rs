//! One line for each check, in one call each, so that lines of several programs do not mix.

use core::fmt::{self, Debug, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::linux;

/// Where output goes.
const OUTPUT: u64 = 1;

static FAILURES: AtomicU32 = AtomicU32::new(0);

/// A line; what does not fit is cut off.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte is left for the end of the line.
        let room = self.bytes.len() - 1 - self.len;
        let len = text.len().min(room);
        self.bytes[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Writes a line of text that is no check.
pub fn say(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], len: 0 };
    // Nothing that is written here has an error of its own.
    let _ = line.write_fmt(text);
    line.bytes[line.len] = b'\n';
    // Who cannot write cannot say so either.
    let _ = linux::write(OUTPUT, &line.bytes[..=line.len]);
}

/// Reports that `text` holds, or that it does not.
#[expect(clippy::fn_params_excessive_bools, reason = "what holds or not is what it is about")]
pub fn check(text: &str, condition: bool) {
    if condition {
        say(format_args!("ok  {text}"));
    } else {
        failed(format_args!("{text}: it does not hold"));
    }
}

/// Reports that `text` holds if `got` is what is `wanted`.
pub fn equal<T: PartialEq + Debug>(text: &str, got: T, wanted: T) {
    if got == wanted {
        say(format_args!("ok  {text}"));
    } else {
        failed(format_args!("{text}: got {got:?}, wanted {wanted:?}"));
    }
}

pub(crate) fn failed(text: fmt::Arguments<'_>) {
    FAILURES.fetch_add(1, Ordering::Relaxed);
    say(format_args!("FAILED  {text}"));
}

/// What the program ends with: 0 if no check failed.
pub(crate) fn exit_code() -> u8 {
    u8::from(FAILURES.load(Ordering::Relaxed) > 0)
}
