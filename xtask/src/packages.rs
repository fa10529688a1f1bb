//! The Debian packages that the tests need.
//!
//! A program counts, not a package: whoever has python3 from elsewhere needs nothing installed.
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};
use nix::unistd::Uid;

use crate::lab::missing;
use crate::step::Verdict;

/// A program, or a file where the name begins with `/`, and the package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("python3", "python3"),
    ("sqlite3", "sqlite3"),
    ("git", "git"),
    ("bash", "bash"),
    ("ps", "procps"),
    ("setpriv", "util-linux"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("initdb", "postgresql"),
    ("node", "nodejs"),
    ("java", "default-jdk-headless"),
    ("javac", "default-jdk-headless"),
    ("valgrind", "valgrind"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("clang", "clang"),
    ("wasm-ld", "lld"),
    ("wasm-opt", "binaryen"),
    ("/usr/include/wasm32-wasi/stdio.h", "wasi-libc"),
    // The library itself is in a folder with clang's version in its name.
    ("/usr/share/doc/libclang-rt-dev-wasm32/copyright", "libclang-rt-dev-wasm32"),
];

/// The package that brings `program`, if the tests know one.
fn package_of(program: &str) -> Option<&'static str> {
    NEEDED.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

/// Why something that needs these cannot run here, if one of them is not there.
pub(crate) fn absent(needs: &[&str]) -> Option<String> {
    let need = needs.iter().find(|need| is_missing(need))?;
    Some(match package_of(need) {
        Some(package) => format!("{need} is not installed (Debian package {package})"),
        None => format!("{need} is not installed"),
    })
}

/// Installs what is missing for all tests, after saying so.
pub(crate) fn install_missing() -> Result<Verdict> {
    let all: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
    install(&all)
}

/// Installs those of these that are missing, after saying so.
pub(crate) fn install(needs: &[&str]) -> Result<Verdict> {
    let missing_ones = || needs.iter().copied().filter(|name| is_missing(name));
    let mut wanted: Vec<&str> = missing_ones().filter_map(package_of).collect();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(Verdict::Passed);
    }
    let list = wanted.join(" ");
    if missing(&["apt-get"]).is_some() {
        return Ok(Verdict::Skipped(format!("this is no Debian; the programs of these packages are missing: {list}")));
    }
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    let Some(prefix) = privilege() else {
        bail!(
            "packages are missing and only root can install them. Run this, then try again:\n  sudo sh -c '{by_hand}'"
        );
    };
    println!("          installing: {list}");
    apt(prefix, &["update"], &by_hand)?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&wanted);
    apt(prefix, &install, &by_hand)?;
    let still: Vec<&str> = missing_ones().collect();
    ensure!(still.is_empty(), "installed, and still not there: {}", still.join(" "));
    Ok(Verdict::Passed)
}

fn is_missing(name: &str) -> bool {
    if name.starts_with('/') { !Path::new(name).exists() } else { missing(&[name]).is_some() }
}

/// What has to stand before a command that only root may run; none where that is impossible.
fn privilege() -> Option<&'static [&'static str]> {
    if Uid::effective().is_root() {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str], args: &[&str], by_hand: &str) -> Result<()> {
    let line: Vec<&str> =
        prefix.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).chain(args).copied().collect();
    let output = Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    bail!("apt-get {} failed. Run this by hand, then try again:\n  {by_hand}\n{}", args[0], text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_that_is_needed_has_a_package_or_comes_with_the_toolchain() {
        for need in crate::programs::needs().chain(crate::kernel::NEEDS.iter().copied()) {
            assert!(package_of(need).is_some() || ["cargo", "rustc"].contains(&need), "no package for {need}");
        }
    }

    #[test]
    fn an_absent_program_has_a_reason() {
        assert_eq!(absent(&["sh", "no-such-program"]).unwrap(), "no-such-program is not installed");
        assert_eq!(absent(&["sh"]), None);
    }

    #[test]
    fn what_is_not_there_is_missing() {
        assert!(is_missing("no-such-program-as-this"));
        assert!(is_missing("/no/such/file"));
        assert!(!is_missing("sh"));
    }
}
