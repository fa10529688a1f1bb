//! The small kernel in `kernel/`: built, booted in QEMU, and held to what it has to say.
//!
//! Outside: what the kernel checks. It says so itself, a line for each check.
mod boot;
mod build;
mod transcript;
mod wrong;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::job::{Ended, Outcome};
use crate::step::Verdict;
use crate::{packages, root, target};
use boot::{Machine, PASSED};
use build::Build;

/// Programs, and files, that the kernel is built and booted with.
pub(crate) const NEEDS: &[&str] = &["gcc", "/usr/lib/x86_64-linux-gnu/libc.a", boot::QEMU, "setpriv"];
/// A good kernel takes a few seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What to do with the kernel: without options, boot it and print what it says.
#[derive(Args)]
pub(crate) struct KernelArgs {
    /// Compare what it says with kernel/transcript.txt; install what is missing.
    #[arg(long, conflicts_with_all = ["bless", "wrong"])]
    test: bool,
    /// Write what it says to kernel/transcript.txt, if it ends well.
    #[arg(long, conflicts_with = "wrong")]
    bless: bool,
    /// Boot kernels with a fault, all or those with these names; each has to be noticed.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    wrong: Option<Vec<String>>,
    /// How many processors the machine has.
    #[arg(long, default_value_t = boot::USUAL.processors, conflicts_with_all = ["test", "bless", "wrong"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=255))]
    processors: u32,
    /// How much memory the machine has, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = boot::USUAL.memory, conflicts_with_all = ["test", "bless", "wrong"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,
}

/// `cargo xtask kernel`.
pub(crate) fn run(args: &KernelArgs) -> Result<()> {
    if args.test {
        packages::install(NEEDS)?;
    }
    if let Some(reason) = absent() {
        bail!(reason);
    }
    match &args.wrong {
        Some(names) => wrong::run(names),
        None if args.test => compare(),
        None if args.bless => bless(),
        None => boot_and_print(&Machine { processors: args.processors, memory: args.memory }),
    }
}

/// The step of the test command.
pub(crate) fn check() -> Result<Verdict> {
    match absent() {
        Some(reason) => Ok(Verdict::Skipped(reason)),
        None => compare().map(|()| Verdict::Passed),
    }
}

/// Why the kernel cannot be built or booted here.
fn absent() -> Option<String> {
    if cfg!(target_arch = "x86_64") { packages::absent(NEEDS) } else { Some("this is not x86-64".to_owned()) }
}

/// Where the kernel's packages are built, by all tasks.
pub(crate) fn target_folder() -> PathBuf {
    folder("kernel")
}

/// A folder among what is built. Copies of the sources are built from elsewhere, so it does not depend on where one is.
fn folder(name: &str) -> PathBuf {
    root().join(target()).join(name)
}

fn build_here() -> Build {
    Build { sources: root(), target: target_folder(), environment: &[] }
}

fn boot_and_print(machine: &Machine) -> Result<()> {
    let image = build_here().image()?;
    let outcome = machine.boot(&image, LIMIT, show)?;
    let end = boot::describe(&outcome);
    ensure!(outcome.ended == Ended::Code(PASSED), "{end}");
    println!("\n{end}");
    Ok(())
}

fn boot_usual() -> Result<Outcome> {
    boot::USUAL.boot(&build_here().image()?, LIMIT, |_| ())
}

fn compare() -> Result<()> {
    let expected = transcript::expected()?;
    let outcome = boot_usual()?;
    let checks = transcript::check(&expected, &outcome)?;
    println!("          {checks} checks, from start to halt in {:.2} s", outcome.elapsed.as_secs_f64());
    Ok(())
}

fn bless() -> Result<()> {
    let outcome = boot_usual()?;
    let file = root().join(transcript::FILE);
    let old = if file.exists() { transcript::expected()? } else { String::new() };
    let new = transcript::bless(&old, &outcome)?;
    fs::write(file, &new)?;
    println!("{} {}", transcript::FILE, if new == old { "is as it was" } else { "is another; review it" });
    Ok(())
}

/// Nobody may be there to read it any more; the kernel goes on.
fn show(text: &[u8]) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).ok();
}
