//! Runs a program although the kernel under it may have mistakes: a panic becomes a line that the host does not print,
//! and what does not end is ended.

use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use super::super::interpret::{Interpreter, flush};
use super::super::program::Step;

/// How long a program may take. The longest take a tenth of a second.
const SECONDS: libc::c_uint = 20;

/// What the panic has said.
static LAST_WORDS: Mutex<String> = Mutex::new(String::new());

/// Runs `steps` in a process that is theirs alone.
pub(in super::super) fn run_watched(interpreter: &mut Interpreter, steps: &[Step]) {
    panic::set_hook(Box::new(|info| {
        *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string().replace('\n', " ");
    }));
    // SAFETY: plain numbers; the signal ends this process.
    unsafe { libc::alarm(SECONDS) };
    if panic::catch_unwind(AssertUnwindSafe(|| interpreter.run(steps))).is_err() {
        let words = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(interpreter.out, "machine: {words}");
        flush(&mut interpreter.out);
    }
}
