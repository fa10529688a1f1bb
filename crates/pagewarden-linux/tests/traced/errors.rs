//! Programs that cannot be run, and limits that are too small.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pagewarden_linux::{Exit, RunError, RunOptions, RunOutcome};

use crate::support::{Link, guest, run_watched};

fn attempt(marker: &Path, program: impl Into<OsString>) -> Result<RunOutcome, RunError> {
    run_watched(marker, RunOptions { program: program.into(), ..RunOptions::default() })
}

/// A file made by another process, so that no child of ours has it open for writing when it is executed.
fn file(directory: &Path, bytes: &[u8], mode: u32) -> PathBuf {
    let (source, path) = (directory.join("source"), directory.join("program"));
    fs::write(&source, bytes).unwrap();
    assert!(Command::new("cp").arg(&source).arg(&path).status().unwrap().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn unknown_programs_are_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nothing").into_os_string();
    for program in [OsString::from("no-program-has-this-name"), OsString::new(), path] {
        let result = attempt(directory.path(), &program);
        assert!(matches!(result, Err(RunError::NotFound { .. })), "{program:?}: {result:?}");
    }
}

#[test]
fn what_cannot_be_executed_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |program: &Path| match attempt(directory.path(), program) {
        Err(RunError::NotExecutable { source, .. }) => source.raw_os_error(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(directory.path()), Some(libc::EACCES));
    assert_eq!(refused(&file(directory.path(), b"#!/bin/sh\n", 0o644)), Some(libc::EACCES));
    assert_eq!(refused(&file(directory.path(), b"neither script nor program\n", 0o755)), Some(libc::ENOEXEC));
    assert_eq!(refused(&file(directory.path(), b"\x7fELF", 0o755)), Some(libc::ENOEXEC));
    assert_eq!(refused(&directory.path().join("program/below")), Some(libc::ENOTDIR));
}

#[test]
fn arguments_with_zero_bytes_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let options = RunOptions { program: "true".into(), args: vec!["a\0b".into()], ..RunOptions::default() };
    assert!(matches!(run_watched(directory.path(), options), Err(RunError::NotExecutable { .. })));
}

#[test]
fn scripts_run() {
    let directory = tempfile::tempdir().unwrap();
    let script = file(directory.path(), b"#!/bin/sh\n(exit 4) | true\nexit 21\n", 0o755);
    assert_eq!(attempt(directory.path(), script).unwrap().exit, Exit::Code(21));
    assert_eq!(attempt(directory.path(), "true").unwrap().exit, Exit::Code(0));
}

/// `mov eax, 1; mov ebx, 5; int 0x80` as a 32-bit program.
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 5, 0, 0, 0, 0xcd, 0x80];
    let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    bytes.extend(halves(&[2, 3]));
    bytes.extend(words(&[1, BASE + 84, 52, 0, 0]));
    bytes.extend(halves(&[52, 32, 1, 40, 0, 0]));
    bytes.extend(words(&[1, 0, BASE, BASE, 96, 96, 5, 0x1000]));
    bytes.extend(code);
    bytes
}

#[test]
fn programs_of_32_bits_are_killed_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let program = file(directory.path(), &program_of_32_bits(), 0o755);
    if let Err(error) = Command::new(&program).status() {
        println!("this host runs no 32-bit programs: {error}");
        assert!(matches!(attempt(directory.path(), program), Err(RunError::NotExecutable { .. })));
        return;
    }
    let outcome = attempt(directory.path(), program).unwrap();
    assert_eq!(outcome.exit, Exit::Signal(libc::SIGKILL));
    assert!(outcome.hints.iter().any(|hint| hint.contains("32-bit")), "{:?}", outcome.hints);
}

#[test]
fn limits_too_small_to_start_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let program: OsString = guest(Link::Dynamic).into();
    let options = || RunOptions { program: program.clone(), ..RunOptions::default() };
    let limits = [
        ("--commit-limit", 4096, RunOptions { commit_limit: Some(4096), ..options() }),
        ("--reserve-limit", 65536, RunOptions { reserve_limit: Some(65536), ..options() }),
        ("--map-limit", 2, RunOptions { map_limit: Some(2), ..options() }),
    ];
    for (name, amount, options) in limits {
        match run_watched(directory.path(), options) {
            Err(RunError::LimitTooSmall { limit, given, needed, .. }) => {
                assert_eq!((limit, given), (name, amount));
                assert!(needed > amount && needed < 1 << 30, "{needed}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
