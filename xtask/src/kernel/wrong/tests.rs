//! What counts as noticed, what does not, and that the table still fits.
use super::*;

const EXPECTED: &str = "boot\n  ok  text is read-only: error code {}\n  ok  clean\nhalt: 2 checks, 0 failed\n";
const SAID: &str = "boot\n  ok  text is read-only: error code 3\n  ok  clean\nhalt: 2 checks, 0 failed\n";
const TEXT_IS_WRITABLE: Wrong = Wrong {
    name: "text is writable",
    file: "kernel/src/map.rs",
    text: "Rights::EXECUTE",
    instead: "Rights::ALL",
    fails: &["text is read-only: error code {}"],
};

fn boot(said: &str, ended: Ended) -> Outcome {
    Outcome { ended, stdout: said.to_owned(), stderr: String::new(), elapsed: Duration::ZERO, survivors: Vec::new() }
}

fn noticed(said: &str, ended: Ended) -> Result<String> {
    TEXT_IS_WRITABLE.noticed(EXPECTED, &boot(said, ended))
}

#[test]
fn the_table_fits_the_sources_and_the_expectation() {
    let names: std::collections::HashSet<&str> = all().map(|wrong| wrong.name).collect();
    assert_eq!(names.len(), all().count(), "two have the same name");
    let expected = transcript::expected().unwrap();
    let problems: Vec<String> = all().flat_map(|wrong| wrong.problems(&root(), &expected)).collect();
    assert_eq!(problems, Vec::<String>::new());
    for wrong in all() {
        assert!(SOURCES.iter().any(|place| Path::new(wrong.file).starts_with(place)), "{} is not copied", wrong.file);
    }
}

#[test]
fn a_fault_takes_the_place_of_a_text_that_stands_there_once() {
    let apply = |text: &str| TEXT_IS_WRITABLE.apply(text);
    assert_eq!(apply("map(Rights::EXECUTE);").unwrap(), "map(Rights::ALL);");
    assert!(apply("map(Rights::READ);").unwrap_err().to_string().contains("stands 0 times in kernel/src/map.rs"));
    assert!(apply("Rights::EXECUTE Rights::EXECUTE").unwrap_err().to_string().contains("stands 2 times"));
    assert!(Wrong { instead: "Rights::EXECUTE", ..TEXT_IS_WRITABLE }.apply("Rights::EXECUTE").is_err());
}

#[test]
fn an_entry_names_a_file_and_checks_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let problems = |wrong: Wrong| wrong.problems(folder.path(), EXPECTED);
    assert_eq!(problems(TEXT_IS_WRITABLE).len(), 1);
    fs::create_dir_all(folder.path().join("kernel/src")).unwrap();
    fs::write(folder.path().join("kernel/src/map.rs"), "Rights::EXECUTE").unwrap();
    assert_eq!(problems(TEXT_IS_WRITABLE), Vec::<String>::new());
    for (fails, what) in [(&["no such"] as &[_], "0 checks"), (&[""], "2 checks"), (&[], "names no check")] {
        let found = problems(Wrong { fails, ..TEXT_IS_WRITABLE });
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }
}

#[test]
fn a_check_that_fails_or_is_not_reached_has_noticed() {
    let failing =
        SAID.replace("  ok  text is read-only: error code 3", "  FAILED  text is read-only: error code 0: no trap");
    assert_eq!(noticed(&failing, Ended::Code(35)).unwrap(), "text is read-only: error code 0: no trap");
    let absent = SAID.replace("  ok  text is read-only: error code 3\n", "");
    assert_eq!(noticed(&absent, Ended::Code(33)).unwrap(), "the check is not there");
    let panicked = noticed("boot\npanic: no\n", Ended::Code(37)).unwrap();
    assert!(panicked.starts_with("the kernel panicked") && panicked.ends_with(", after: panic: no"), "{panicked}");
    assert!(noticed("boot\n", Ended::Code(0)).unwrap().contains("triple fault"));
    assert!(noticed("boot\n", Ended::TimedOut).unwrap().contains("not halt in time"));
}

#[test]
fn a_check_that_passes_has_not_noticed_whatever_comes_after() {
    assert!(noticed(SAID, Ended::Code(33)).is_err());
    for end in [Ended::Code(35), Ended::Code(37), Ended::TimedOut] {
        let missed = noticed("boot\n  ok  text is read-only: error code 3\n", end).unwrap_err().to_string();
        assert!(missed.starts_with("\"text is read-only: error code {}\" passes all the same"), "{missed}");
        assert_eq!(missed.contains("but: "), end != Ended::Code(35), "{missed}");
    }
    let other = SAID.replace("  ok  clean", "  FAILED  clean: no");
    assert!(noticed(&other, Ended::Code(35)).unwrap_err().to_string().ends_with("\n            but: clean: no"));
    let both = Wrong { fails: &["text is", "clean"], ..TEXT_IS_WRITABLE };
    let one = SAID.replace("  ok  text", "  FAILED  text");
    assert!(both.noticed(EXPECTED, &boot(&one, Ended::Code(35))).unwrap_err().to_string().starts_with("\"clean\""));
}

#[test]
fn a_check_is_proved_where_it_fails_or_is_named_not_where_it_is_missing() {
    let proves = |check: &str, said: &str| TEXT_IS_WRITABLE.proves(check, said);
    assert!(proves("text is read-only: error code {}", ""));
    assert!(proves("clean", "  FAILED  clean: 1 frame is lost\n") && proves("{} free", "  FAILED  7 free\n"));
    assert!(!proves("clean", "boot\n"));
    assert!(!proves("clean", "  ok  clean\n  FAILED  cleanest: no\n  FAILED  so clean: no\n"));
}

#[test]
fn a_copy_has_the_files_and_no_others_and_leaves_those_that_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    for (file, text) in [("a", "a"), ("b/c", "c"), ("b/target/d", "d"), ("e/f", "f")] {
        let file = from.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let mut files = read(&from, &["a", "b"]).unwrap();
    assert_eq!(files.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a", "b/c"]);
    write(&to, &files).unwrap();
    fs::write(to.join("b/old"), "old").unwrap();
    let time = |name| fs::metadata(to.join(name)).unwrap().modified().unwrap();
    let before = (time("a"), time("b/c"));
    std::thread::sleep(Duration::from_millis(20));
    files.insert(PathBuf::from("b/c"), b"wrong".to_vec());
    write(&to, &files).unwrap();
    assert!(time("a") == before.0 && time("b/c") > before.1);
    assert_eq!(fs::read(to.join("b/c")).unwrap(), b"wrong");
    assert!(!to.join("b/old").exists());
}
