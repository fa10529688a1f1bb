//! The test command: everything that must pass, in order, stopping at the first step that fails.
use std::fs;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::lab::{Lab, cargo};
use crate::step::{Steps, Verdict};
use crate::{Subject, bench, concurrency, job, kernel, packages, programs, root, target, tidy};

/// A target without std that rustup can install.
const BARE_TARGET: &str = "x86_64-unknown-none";

/// A workspace of its own.
const KERNEL: &str = "kernel/Cargo.toml";
/// Its packages that run on the host too.
const KERNEL_TESTED: &[&str] = &["--package", "pagewarden-kernel-abi", "--package", "pagewarden-kernel-loader"];

/// The command with `cage`, which its users ask for.
const CAGES: [&str; 2] = ["--features", "pagewarden-cli/cage"];

type Step = fn(&mut Steps) -> Result<Verdict>;

const STEPS: &[(&str, Step)] = &[
    ("packages", |_| packages::install_missing()),
    ("format", |_| run_cargo(&["fmt", "--all", "--check"])),
    ("tidy", |_| tidy::run().map(|()| Verdict::Passed)),
    ("lints", |_| run_cargo(&["clippy", "--workspace", "--all-targets", CAGES[0], CAGES[1], "--", "-D", "warnings"])),
    ("unit and integration tests", |_| run_cargo(&["test", "--workspace", CAGES[0], CAGES[1]])),
    ("examples that must not compile", |_| refused_examples()),
    ("threads in every order, or in many", |_| concurrency::interleavings()),
    ("threads under ThreadSanitizer", |_| concurrency::sanitizer()),
    ("core without default features", |_| core_alone()),
    ("core on a target without std", |_| core_on_bare_target()),
    ("fuzz targets", |_| run_cargo(&["check", "--locked", "--manifest-path", "fuzz/Cargo.toml"])),
    ("documentation", |_| documentation()),
    ("instruction counts", |_| bench::instructions::check()),
    ("kernel: format", |_| run_cargo(&["fmt", "--all", "--check", "--manifest-path", KERNEL])),
    ("kernel: lints", |_| in_kernel(&["clippy", "--workspace", "--all-targets"], &["--", "-D", "warnings"])),
    ("kernel: unit tests", |_| in_kernel(&["test"], KERNEL_TESTED)),
    ("kernel in QEMU", |_| kernel::check()),
    ("real programs", real_programs),
];

/// `cargo xtask test`.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    for (number, (name, step)) in (1..).zip(STEPS) {
        println!("\n[{number}/{}] {name}", STEPS.len());
        let mut inner = Steps::default();
        let went_on = steps.run(name, || step(&mut inner));
        steps.absorb(name, inner);
        if !went_on {
            println!("  stopping here; {} steps were not reached", STEPS.len() - number);
            break;
        }
    }
    steps.summary("steps and cases")
}

fn run_cargo(args: &[&str]) -> Result<Verdict> {
    job::pass(cargo().args(args))?;
    Ok(Verdict::Passed)
}

/// A task of cargo in the kernel's workspace, in the folder where the kernel is built.
fn in_kernel(task: &[&str], rest: &[&str]) -> Result<Verdict> {
    let mut command = cargo();
    command.args(task).args(["--locked", "--manifest-path", KERNEL, "--target-dir"]).arg(kernel::target_folder());
    job::pass(command.args(rest))?;
    Ok(Verdict::Passed)
}

fn core_alone() -> Result<Verdict> {
    check_no_std(&fs::read_to_string(root().join("crates/pagewarden/src/lib.rs"))?)?;
    run_cargo(&["build", "--package", "pagewarden", "--no-default-features"])
}

/// An example that must not compile names the error it is refused with, and rustdoc compares the two only if it may use
/// what is not stable. Otherwise one that does not compile for want of a name would pass.
fn refused_examples() -> Result<Verdict> {
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "pagewarden", "--doc", "--target-dir"]).arg(target().join("refused"));
    job::pass(command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(Verdict::Passed)
}

/// On a host target std can always be linked, so the source has to say that it is not used.
fn check_no_std(library: &str) -> Result<()> {
    let lines: Vec<&str> = library.lines().map(str::trim).collect();
    ensure!(lines.contains(&"#![no_std]"), "the core does not say #![no_std]");
    for (number, line) in lines.iter().enumerate() {
        let before = number.checked_sub(1).map_or("", |before| lines[before]);
        if line.starts_with("extern crate std") && before != "#[cfg(test)]" {
            bail!("line {}: the core uses std outside its tests", number + 1);
        }
    }
    Ok(())
}

fn core_on_bare_target() -> Result<Verdict> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", BARE_TARGET]).output()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !fs::exists(&folder)? {
        return Ok(Verdict::Skipped(format!(
            "target {BARE_TARGET} is not installed (rustup target add {BARE_TARGET})"
        )));
    }
    run_cargo(&["build", "--package", "pagewarden", "--no-default-features", "--target", BARE_TARGET])
}

fn documentation() -> Result<Verdict> {
    job::pass(cargo().args(["doc", "--workspace", "--no-deps", "--lib"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Verdict::Passed)
}

/// The cases count themselves, in `steps`.
fn real_programs(steps: &mut Steps) -> Result<Verdict> {
    let lab = Lab::new(&Subject::default())?;
    *steps = programs::run_in(&lab, &[])?;
    ensure!(!steps.has_failed(), "a case failed; run it alone with `cargo xtask programs NAME`");
    Ok(Verdict::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn std_is_for_tests_only() {
        assert!(check_no_std("//! Core.\n#![no_std]\nextern crate alloc;\n#[cfg(test)]\nextern crate std;\n").is_ok());
        assert!(check_no_std("#![no_std]\nextern crate std;\n").is_err());
        assert!(check_no_std("//! #![no_std]\n").is_err());
        assert!(check_no_std("#![cfg_attr(not(test), no_std)]\n").is_err());
    }
}
