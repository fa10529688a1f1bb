//! What is noticed, and what is not held against a kernel.
use std::time::Duration;

use super::*;

const EXPECTED: &str = "\
pagewarden kernel, {} processors
boot
  ok  text is read-only: error code 3
  ok  {} frames are free
      [hello] hello
end
  ok  clean
halt: 3 checks, 0 failed
";

const SAID: &str = "\
pagewarden kernel, 2 processors\r
boot
  ok  text is read-only: error code 3
  --  4 tables
  ok  0x7f frames are free
      [other] other
      [hello] hello
      [other] other

end
  ok  clean
halt: 3 checks, 0 failed
";

fn boot(said: &str, code: i32) -> Outcome {
    Outcome {
        ended: Ended::Code(code),
        stdout: said.to_owned(),
        stderr: String::new(),
        elapsed: Duration::from_secs(1),
        survivors: Vec::new(),
    }
}

/// What is wrong when the kernel says this instead.
fn problem(from: &str, to: &str) -> String {
    let said = SAID.replace(from, to);
    assert_ne!(said, SAID);
    check(EXPECTED, &boot(&said, PASSED)).unwrap_err().to_string()
}

#[test]
fn a_boot_that_is_as_expected_passes() {
    assert_eq!(check(EXPECTED, &boot(SAID, PASSED)).unwrap(), 3);
    assert_eq!(check(EXPECTED, &boot(&SAID.replace("  --  4 tables\n", ""), PASSED)).unwrap(), 3);
}

#[test]
fn a_boot_must_end_well_whatever_it_says() {
    for (code, what) in [(0, "triple fault"), (1, "QEMU failed"), (35, "something failed"), (37, "panicked")] {
        let problem = check(EXPECTED, &boot(SAID, code)).unwrap_err().to_string();
        assert!(problem.contains(what) && problem.contains("; its last lines:\n        [other] other\n"), "{problem}");
    }
    let late = Outcome { ended: Ended::TimedOut, ..boot(SAID, 0) };
    assert!(check(EXPECTED, &late).unwrap_err().to_string().contains("not halt in time"));
}

#[test]
fn a_difference_is_shown_with_what_stands_around_it() {
    let problem = problem("error code 3", "error code 7");
    let shown = "\
not as expected; - is kernel/transcript.txt, + is what the kernel said:
    pagewarden kernel, 2 processors
    boot
  -   ok  text is read-only: error code 3
  -   ok  {} frames are free
  -       [hello] hello
  - end
  -   ok  clean
  - halt: 3 checks, 0 failed
  +   ok  text is read-only: error code 7
  +   --  4 tables
  +   ok  0x7f frames are free
  +       [other] other
  +       [hello] hello
  +       [other] other";
    assert_eq!(problem, shown);
}

#[test]
fn a_check_that_is_missing_or_new_or_not_in_its_place_is_a_difference() {
    let frames = "  ok  0x7f frames are free\n";
    assert!(problem(frames, "").contains("-   ok  {} frames are free\n"));
    assert!(problem("end\n", "  ok  more\nend\n").contains("+   ok  more\n"));
    assert!(problem("end\n", "middle\nend\n").contains("+ middle\n"));
    let text = "  ok  text is read-only: error code 3\n";
    let swapped = SAID.replace(frames, "").replace(text, &format!("{frames}{text}"));
    assert!(check(EXPECTED, &boot(&swapped, PASSED)).is_err());
    let (begun, _) = SAID.split_once("end\n").unwrap();
    let cut = check(EXPECTED, &boot(begun, PASSED)).unwrap_err().to_string();
    assert!(cut.ends_with("\n  - end\n  -   ok  clean\n  - halt: 3 checks, 0 failed"), "{cut}");
    assert!(problem("0x7f frames", "no frames").contains("+   ok  no frames are free"));
}

#[test]
fn a_line_of_a_program_counts_where_it_is_listed() {
    assert!(problem("      [hello] hello\n", "").contains("-       [hello] hello\n"));
    assert!(problem("[hello] hello", "[hello] bye").contains("-       [hello] hello\n"));
}

#[test]
fn a_check_that_failed_is_a_problem_of_its_own() {
    let problem = problem("  ok  clean", "  FAILED  clean: 1 frame is lost");
    assert!(
        problem.contains("\nfailed: clean: 1 frame is lost\n") || problem.starts_with("failed: clean"),
        "{problem}"
    );
    assert!(problem.contains("halt: 2 checks, 0 failed"), "{problem}");
}

#[test]
fn the_kernel_must_count_as_many_checks_as_it_printed_and_say_so_last() {
    for (from, to) in [("halt: 3", "halt: 4"), ("0 failed", "1 failed"), ("halt: 3 checks, 0 failed\n", "")] {
        assert!(problem(from, to).contains("the last line is not \"halt: 3 checks, 0 failed\""));
    }
    let more = SAID.to_owned() + "      [hello] still there\n";
    assert!(check(EXPECTED, &boot(&more, PASSED)).unwrap_err().to_string().contains("the last line"));
}

#[test]
fn a_hole_is_one_number() {
    for line in ["a 7 b", "a 1234 b", "a 0x0 b", "a 0xdeadBEEF b", "a 1.25 b"] {
        assert!(matches("a {} b", line), "{line}");
    }
    for line in ["a  b", "a x b", "a 0x b", "a -1 b", "a 1 2 b", "a 1. b", "a 1 b ", "a {} b"] {
        assert!(!matches("a {} b", line), "{line}");
    }
    assert!(matches("{}", "1") && matches("took {}.", "took 5."));
    assert!(!matches("a {} b {}", "a 1 b") && !matches("a", "a 1"));
    assert_eq!((after("a {} b", "a 7 b and so on"), after("a {} b", "so a 7 b")), (Some(" and so on"), None));
}

#[test]
fn a_blessed_boot_keeps_holes_and_listed_lines_and_takes_new_numbers() {
    let said = SAID.replace("error code 3", "error code 7").replace("  ok  clean", "  ok  2 new\n  ok  clean");
    let said = said.replace("halt: 3", "halt: 4");
    let blessed = bless(EXPECTED, &boot(&said, PASSED)).unwrap();
    let expected = EXPECTED.replace("error code 3", "error code 7").replace("  ok  clean", "  ok  2 new\n  ok  clean");
    assert_eq!(blessed, expected.replace("halt: 3", "halt: 4"));
    assert_eq!(check(&blessed, &boot(&said, PASSED)).unwrap(), 4);
    assert_eq!(check(&bless("", &boot(SAID, PASSED)).unwrap(), &boot(SAID, PASSED)).unwrap(), 3);
}

#[test]
fn holes_are_kept_line_by_line() {
    let said = "a\n  ok  1 of 2\n  ok  3 of 4\nhalt: 2 checks, 0 failed\n";
    let old = "a\n  ok  {} of 9\n  ok  3 of {}\nhalt: 1 checks, 0 failed\n";
    let new = "a\n  ok  {} of 2\n  ok  3 of {}\nhalt: 2 checks, 0 failed\n";
    assert_eq!(bless(old, &boot(said, PASSED)).unwrap(), new);
}

#[test]
fn a_boot_with_flaws_is_not_blessed() {
    assert!(bless(EXPECTED, &boot(SAID, 35)).is_err());
    assert!(bless(EXPECTED, &boot(&SAID.replace("ok  clean", "FAILED  clean: no"), PASSED)).is_err());
    assert!(bless(EXPECTED, &boot(&SAID.replace("halt: 3", "halt: 2"), PASSED)).is_err());
}
