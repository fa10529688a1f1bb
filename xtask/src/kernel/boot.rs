//! One boot of a kernel in QEMU: what it prints, and how it ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::job::{Ended, Job, Outcome};

pub(super) const QEMU: &str = "qemu-system-x86_64";
/// The debug-exit device makes twice the kernel's code, and one, QEMU's status. QEMU's own failures give 1, and a machine
/// that resets gives 0, so the kernel's codes are none of these.
pub(super) const PASSED: i32 = 33;
pub(super) const FAILED: i32 = 35;
const PANICKED: i32 = 37;

/// The machine that the kernel finds.
pub(super) struct Machine {
    pub(super) processors: u32,
    /// In MiB.
    pub(super) memory: u32,
}

/// The machine that `kernel/transcript.txt` is of.
pub(super) const USUAL: Machine = Machine { processors: 2, memory: 256 };

impl Machine {
    /// Boots the kernel `image`, and kills QEMU after `limit`. What the kernel prints goes to `show` as it
    /// comes.
    pub(super) fn boot(&self, image: &Path, limit: Duration, show: impl FnMut(&[u8])) -> Result<Outcome> {
        // QEMU outlives a task that is interrupted, unless the host kernel sees to it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU, "-accel", "tcg", "-cpu", "max", "-machine", "q35"]);
        command.args(["-m", &self.memory.to_string(), "-smp", &self.processors.to_string()]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-device", "edu"]);
        Job::start(command.arg("-kernel").arg(image))?.finish_showing(limit, show)
    }
}

/// How a boot ended, in words.
pub(super) fn describe(outcome: &Outcome) -> String {
    let seconds = outcome.elapsed.as_secs_f64();
    let what = match outcome.ended {
        Ended::Code(PASSED) => "the kernel halted, and nothing failed",
        Ended::Code(FAILED) => "the kernel halted, and something failed",
        Ended::Code(PANICKED) => "the kernel panicked",
        Ended::Code(0) => "the machine was reset, which a triple fault does",
        Ended::Code(_) => "QEMU failed",
        Ended::Killed(_) => "QEMU was killed",
        Ended::TimedOut => "the kernel did not halt in time, and QEMU was killed",
    };
    let status = match outcome.ended {
        Ended::Code(code) => format!("status {code}, "),
        Ended::Killed(signal) => format!("signal {signal}, "),
        Ended::TimedOut => String::new(),
    };
    let said = outcome.stderr.trim_end();
    let said = if said.is_empty() { String::new() } else { format!("\n{said}") };
    format!("{what} ({status}{seconds:.2} s){said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_words() {
        let outcome = |ended| Outcome {
            ended,
            stdout: String::new(),
            stderr: String::new(),
            elapsed: Duration::from_millis(1250),
            survivors: Vec::new(),
        };
        let words = |ended| describe(&outcome(ended));
        assert_eq!(words(Ended::Code(33)), "the kernel halted, and nothing failed (status 33, 1.25 s)");
        assert!(words(Ended::Code(35)).contains("something failed"));
        assert!(words(Ended::Code(37)).contains("panicked"));
        assert!(words(Ended::Code(0)).contains("triple fault"));
        assert!(words(Ended::TimedOut).contains("not halt in time"));
        let failed = Outcome { stderr: "no such device\n".to_owned(), ..outcome(Ended::Code(1)) };
        assert_eq!(describe(&failed), "QEMU failed (status 1, 1.25 s)\nno such device");
    }
}
