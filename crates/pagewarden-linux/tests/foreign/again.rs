//! A test in a process of its own: this program once more, with that test alone and a word that says it is the child.

use std::process::{Child, Command, Output, Stdio};

const ROLE: &str = "PAGEWARDEN_FOREIGN_CHILD";

/// What the child was told; `None` in the parent.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A child that dies with this.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(ROLE, role).stdin(Stdio::null());
    command
}

/// Runs the test `test` as a child, to its end.
pub(crate) fn run(test: &str, role: &str) -> Output {
    command(test, role).output().unwrap()
}

/// Runs the test `test` as a child beside this process.
pub(crate) fn spawn(test: &str, role: &str) -> Process {
    Process(command(test, role).stdout(Stdio::null()).spawn().unwrap())
}

/// How it ended, and what it said.
pub(crate) fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    format!("{:?}: {text}", output.status)
}

/// Runs `child` in a process of its own if this is the parent, and expects it to pass.
pub(crate) fn passes(test: &str, child: impl FnOnce()) {
    if role().is_some() {
        return child();
    }
    let output = run(test, "child");
    assert!(output.status.success(), "{}", told(&output));
}
