//! What is printed, and written as JSON.

mod goals;
mod json;
pub mod pager;
mod table;

use std::process::Command;

pub use goals::{Goal, goals};
pub use json::report as json;
pub use table::{duration, left_out, of_goals, of_programs, of_size};

use serde::Serialize;

/// What the figures hold for.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The model of the processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// The compiler.
    pub rustc: String,
    /// The version of Linux.
    pub kernel: String,
}

impl Environment {
    /// This machine.
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
        let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            processor: model.map_or("unknown processor", |(_, name)| name.trim()).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            rustc: rustc.unwrap_or("unknown rustc".to_owned()),
            kernel: kernel.trim().to_owned(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!("{} ({} processors), {}, Linux {}", self.processor, self.processors, self.rustc, self.kernel)
    }
}
