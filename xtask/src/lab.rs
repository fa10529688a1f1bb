//! Where programs run: a fresh folder, a fixed environment, a chosen user, with or without pagewarden.
//!
//! Native runs and runs under pagewarden use the same path, one after the other, so that a program that prints
//! where it is prints the same. The `pagewarden` binary is copied next to it, where every user can reach it.
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Uid, chown};
use tempfile::TempDir;

use crate::job::{Ended, Job, Outcome};
use crate::{Subject, root, target};

/// Enough for anything that is not a server or a compiler.
pub(crate) const SHORT: Duration = Duration::from_secs(60);

/// What stands in front of the program.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    /// Nothing.
    Native,
    /// `pagewarden run` with these options, or nothing when the lab has no pagewarden.
    Warden(&'a [&'a str]),
}

/// Who runs the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Same,
    /// Not root: where root runs the tests, an ordinary user.
    Ordinary,
}

/// A place to run programs.
pub(crate) struct Lab {
    base: TempDir,
    warden: Option<PathBuf>,
}

impl Lab {
    /// A lab with the pagewarden that `subject` asks for; builds it if need be.
    pub(crate) fn new(subject: &Subject) -> Result<Self> {
        let base = tempfile::Builder::new().prefix("pagewarden-").tempdir().context("making a folder")?;
        fs::set_permissions(base.path(), Permissions::from_mode(0o755))?;
        let source = match (&subject.binary, subject.native) {
            (_, true) => None,
            (Some(path), _) => Some(path.clone()),
            (None, _) => Some(build_release()?),
        };
        let warden = source.map(|source| install(&source, &base.path().join("pagewarden"))).transpose()?;
        Ok(Self { base, warden })
    }

    /// Whether there is a pagewarden at all.
    pub(crate) fn has_warden(&self) -> bool {
        self.warden.is_some()
    }

    /// The pagewarden binary.
    pub(crate) fn warden(&self) -> Result<&Path> {
        self.warden.as_deref().context("there is no pagewarden in front of the programs")
    }

    /// The folder that programs run in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.base.path().join("case")
    }

    /// A file in that folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Empties the folder and puts copies of these files of `tests/programs` there.
    pub(crate) fn refresh(&self, user: User, files: &[&str]) -> Result<()> {
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).context("emptying the folder")?;
        }
        fs::create_dir(&folder)?;
        for file in files {
            let source = root().join("tests/programs").join(file);
            let name = source.file_name().context("a file without a name")?;
            fs::copy(&source, folder.join(name)).with_context(|| format!("copying {}", source.display()))?;
        }
        if let Some(account) = other_account(user)? {
            chown(&folder, Some(account.uid), Some(account.gid))?;
        }
        Ok(())
    }

    /// The command line that runs `argv` on one side, in the folder, with a fixed environment.
    pub(crate) fn command(&self, side: Side<'_>, user: User, argv: &[&str]) -> Result<Command> {
        let mut line: Vec<OsString> = Vec::new();
        if let Some(account) = other_account(user)? {
            line.push("setpriv".into());
            line.push(format!("--reuid={}", account.uid).into());
            line.push(format!("--regid={}", account.gid).into());
            line.push("--clear-groups".into());
        }
        if let (Side::Warden(options), Some(warden)) = (side, &self.warden) {
            line.extend([warden.as_os_str(), OsStr::new("run")].map(OsString::from));
            line.extend(options.iter().map(OsString::from));
            line.push("--".into());
        }
        line.extend(argv.iter().map(OsString::from));
        ensure!(!line.is_empty(), "nothing to run");
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(self.folder());
        self.set_environment(&mut command);
        Ok(command)
    }

    /// A `pagewarden` command line of its own, not for a program: bad options and the like.
    pub(crate) fn bare(&self, args: &[&str]) -> Result<Outcome> {
        let mut command = Command::new(self.warden()?);
        command.args(args).current_dir(self.folder());
        self.set_environment(&mut command);
        Job::start(&mut command)?.finish(SHORT)
    }

    fn set_environment(&self, command: &mut Command) {
        let folder = self.folder();
        command.env_clear().env("PATH", search_path()).env("LC_ALL", "C").env("TZ", "UTC").env("TERM", "dumb");
        command.env("HOME", &folder).env("TMPDIR", &folder);
    }

    /// Runs `argv` under pagewarden as the user of the tests.
    pub(crate) fn run(&self, options: &[&str], argv: &[&str]) -> Result<Outcome> {
        self.run_for(SHORT, options, argv)
    }

    /// [`Lab::run`] with a time limit.
    pub(crate) fn run_for(&self, limit: Duration, options: &[&str], argv: &[&str]) -> Result<Outcome> {
        let mut command = self.command(Side::Warden(options), User::Same, argv)?;
        Job::start(&mut command)?.finish(limit)
    }

    /// Runs something natively that has to succeed, such as a compiler.
    pub(crate) fn prepare(&self, user: User, argv: &[&str]) -> Result<()> {
        let outcome = Job::start(&mut self.command(Side::Native, user, argv)?)?.finish(Duration::from_secs(120))?;
        ensure!(outcome.ended == Ended::Code(0), "{}: {}", argv.join(" "), outcome.describe());
        Ok(())
    }
}

/// Builds the release binary; where it is.
pub(crate) fn build_release() -> Result<PathBuf> {
    let mut cargo = cargo();
    let status =
        cargo.args(["build", "--release", "--package", "pagewarden-cli"]).status().context("starting cargo")?;
    ensure!(status.success(), "pagewarden does not build");
    Ok(target().join("release/pagewarden"))
}

/// The cargo that runs this task, in the top folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn install(source: &Path, target: &Path) -> Result<PathBuf> {
    fs::copy(source, target).with_context(|| format!("copying {}", source.display()))?;
    fs::set_permissions(target, Permissions::from_mode(0o755))?;
    Ok(target.to_path_buf())
}

/// System folders before all: a shim of a version manager would be another program, and a slow one.
pub(crate) fn search_path() -> OsString {
    let mut folders: Vec<PathBuf> =
        ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from).into();
    folders.extend(postgres_programs());
    folders.extend(toolchain_programs());
    std::env::join_paths(folders).unwrap_or_default()
}

/// Debian keeps the programs of a PostgreSQL server out of PATH, in a folder for each version.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max()
}

/// The toolchain itself; what stands in PATH may be the wrapper of rustup, which wants its own home.
fn toolchain_programs() -> Option<PathBuf> {
    let cargo = PathBuf::from(std::env::var_os("CARGO")?);
    cargo.parent().map(Path::to_path_buf)
}

/// The first of `programs` that is not there.
pub(crate) fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = search_path();
    programs.iter().copied().find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

struct Account {
    uid: Uid,
    gid: nix::unistd::Gid,
}

fn other_account(user: User) -> Result<Option<Account>> {
    if user == User::Same || !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(found) = nix::unistd::User::from_name(name)? {
            return Ok(Some(Account { uid: found.uid, gid: found.gid }));
        }
    }
    bail!("there is neither a user postgres nor nobody")
}
