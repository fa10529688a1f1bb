//! From sources to an image: the programs first, which the kernel embeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::job;
use crate::lab::cargo;

/// Tells the kernel's build script where its programs are.
const PROGRAMS: &str = "PAGEWARDEN_KERNEL_PROGRAMS";
/// Every program in C is linked to be loaded at a fixed address, each segment in pages of its own. The kernel embeds it
/// whole, so it goes without what only a debugger reads.
const C_FLAGS: &[&str] = &[
    "-O2",
    "-Wall",
    "-Wextra",
    "-s",
    "-static",
    "-no-pie",
    "-Wl,-z,noexecstack",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,separate-code",
    "-Wl,--build-id=none",
];

/// What a program in C wants besides; one without the C library lacks what the compiler's checks call, and `memset`.
fn c_flags(name: &str) -> &'static [&'static str] {
    match name {
        "small" => &["-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns"],
        _ => &[],
    }
}

/// A tree of sources and where it is built.
pub(super) struct Build {
    /// The top folder of the repository, or of a copy of what the kernel needs of it.
    pub(super) sources: PathBuf,
    pub(super) target: PathBuf,
    /// For every cargo that builds.
    pub(super) environment: &'static [(&'static str, &'static str)],
}

impl Build {
    /// Builds the programs and the kernel; where its image is.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let programs = self.target.join("programs");
        fs::create_dir_all(&programs)?;
        let mut built = self.cargo_build("pagewarden-kernel-programs", &[])?;
        built.extend(self.c_programs()?);
        install(&built, &programs)?;
        let kernel = self.cargo_build("pagewarden-kernel", &[(PROGRAMS, &programs)])?;
        let [image] = kernel.as_slice() else { bail!("the kernel is {} files", kernel.len()) };
        Ok(image.clone())
    }

    /// The files of the programs that a package has.
    fn cargo_build(&self, package: &str, environment: &[(&str, &Path)]) -> Result<Vec<PathBuf>> {
        let mut command = cargo();
        command.current_dir(&self.sources).args(["build", "--release", "--bins", "--package", package]);
        command.args(["--message-format=json-render-diagnostics", "--manifest-path", "kernel/Cargo.toml"]);
        command.arg("--target-dir").arg(&self.target).envs(self.environment.iter().copied());
        command.envs(environment.iter().copied()).stderr(Stdio::inherit());
        let output = command.output().context("starting cargo")?;
        ensure!(output.status.success(), "{package} does not build");
        Ok(executables(&String::from_utf8_lossy(&output.stdout)))
    }

    fn c_programs(&self) -> Result<Vec<PathBuf>> {
        let folder = self.target.join("c");
        fs::create_dir_all(&folder)?;
        let sources = self.sources.join("kernel/programs/c");
        if !sources.exists() {
            return Ok(Vec::new());
        }
        let mut built = Vec::new();
        for source in fs::read_dir(sources)? {
            let source = source?.path();
            if source.extension().is_none_or(|extension| extension != "c") {
                continue;
            }
            let name = source.file_stem().and_then(|name| name.to_str()).context("a program without a name")?;
            let program = folder.join(name);
            let mut gcc = Command::new("gcc");
            job::pass(gcc.args(C_FLAGS).args(c_flags(name)).arg("-o").arg(&program).arg(&source))?;
            built.push(program);
        }
        Ok(built)
    }
}

/// The programs of which cargo says that it has built them.
fn executables(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

/// Makes `folder` hold these files and no others. One that is there already is left as it is, or the kernel that embeds it
/// would be built again.
fn install(files: &[PathBuf], folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !files.iter().any(|file| file.file_name() == Some(&entry.file_name())) {
            fs::remove_file(entry.path())?;
        }
    }
    for file in files {
        let place = folder.join(file.file_name().context("a file without a name")?);
        write_changed(&place, &fs::read(file).with_context(|| format!("reading {}", file.display()))?)?;
    }
    Ok(())
}

/// Writes a file unless it has these contents, so that its time says when they changed.
pub(super) fn write_changed(file: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(file, contents).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_which_programs_it_has_built() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/target/release/hello"}
not json
{"reason":"build-finished","success":true}
{"reason":"compiler-artifact","executable":"/target/release/vm"}"#;
        assert_eq!(executables(messages), ["/target/release/hello", "/target/release/vm"].map(PathBuf::from));
    }

    #[test]
    fn a_folder_of_programs_holds_the_new_ones_and_leaves_those_that_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for place in [&from, &to] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("same"), "same").unwrap();
        }
        fs::write(from.join("new"), "new").unwrap();
        fs::write(from.join("changed"), "after").unwrap();
        fs::write(to.join("changed"), "before").unwrap();
        fs::write(to.join("old"), "old").unwrap();
        let time = |name| fs::metadata(to.join(name)).unwrap().modified().unwrap();
        let (same, changed) = (time("same"), time("changed"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        install(&["same", "new", "changed"].map(|name| from.join(name)), &to).unwrap();
        assert_eq!(fs::read(to.join("changed")).unwrap(), b"after");
        assert_eq!(fs::read(to.join("new")).unwrap(), b"new");
        assert!(!to.join("old").exists());
        assert!(time("same") == same && time("changed") > changed);
    }
}
