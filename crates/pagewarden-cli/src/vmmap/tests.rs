//! Tests of the map of a live process.

use super::*;

/// A small program with one region of each kind, and names that are hard to show.
const SMAPS: &[u8] = include_bytes!("golden/smaps.txt");

fn subject() -> Subject {
    Subject {
        pid: 4711,
        command: ["/opt/app/bin/server", "--listen", "0.0.0.0:8080", "--name", "two words", "--verbose", "--workers=4"]
            .map(OsString::from)
            .to_vec(),
        mappings: smaps::parse(SMAPS).unwrap(),
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn widest(text: &str) -> usize {
    text.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap_or(0)
}

#[test]
fn the_layout_at_60_columns() {
    let text = plain(&render(&subject(), Some(60), Detail::Usual));
    assert_eq!(text, include_str!("golden/usual_60.txt"));
    assert!(widest(&text) <= 60);
}

#[test]
fn the_layout_at_80_columns() {
    let text = plain(&render(&subject(), Some(80), Detail::Usual));
    assert_eq!(text, include_str!("golden/usual_80.txt"));
    assert!(widest(&text) <= 80);
}

#[test]
fn the_layout_at_100_columns() {
    let text = plain(&render(&subject(), Some(100), Detail::Usual));
    assert_eq!(text, include_str!("golden/usual_100.txt"));
    assert!(widest(&text) <= 100);
}

#[test]
fn the_layout_with_everything() {
    assert_eq!(plain(&render(&subject(), None, Detail::Wide)), include_str!("golden/wide.txt"));
}

#[test]
fn colours_show_what_is_dangerous_and_what_repeats() {
    let text = render(&subject(), Some(100), Detail::Usual);
    let line = |part: &str| text.lines().find(|line| line.contains(part)).unwrap();
    assert!(line("7f0000400000-").contains("\x1b[1m\x1b[31mrwxp\x1b[0m"), "{}", line("7f0000400000-"));
    assert!(line("7f0010000000-").ends_with("  /usr/lib/x86_64-linux-gnu/libc.so.6"));
    assert!(line("7f0010028000-").ends_with("  \x1b[2m/usr/lib/x86_64-linux-gnu/libc.so.6\x1b[0m"));
}

#[test]
fn names_cannot_steer_the_terminal() {
    let mut subject = subject();
    subject.command = vec![OsString::from("x\x1b[2J\ny")];
    subject.mappings = smaps::parse(b"1000-2000 r--p 0 08:01 5 /a\\012b\x1b]0;c").unwrap();
    let text = plain(&render(&subject, Some(100), Detail::Usual));
    assert!(text.starts_with("4711: x\\033[2J\\012y\n"), "{text}");
    assert!(text.contains("  /a\\012b\\033]0;c\n"), "{text}");
}

#[test]
fn a_map_without_figures_has_no_columns_for_them() {
    let process = ProcessReport {
        pid: 9,
        parent: 1,
        program: "/bin/true".to_owned(),
        exit: None,
        usage: pagewarden_linux::Usage::default(),
        resident_peak: 0,
        calls: std::collections::BTreeMap::new(),
        refused: Vec::new(),
        map_at_exit: Some(
            "00400000-00402000 r-xp 00000000 08:01 12 /bin/true\n7000000000-7000001000 rw-p 0 0:0 0\n".to_owned(),
        ),
    };
    assert_eq!(plain(&at_exit(&process, Some(80))), include_str!("golden/at_exit_80.txt"));
    let unreadable = ProcessReport { map_at_exit: Some("no\x1b map".to_owned()), ..process.clone() };
    let text = plain(&at_exit(&unreadable, Some(80)));
    assert!(text.contains("line 1 of the list") && text.contains("\nno\\033 map\n"), "{text}");
    assert_eq!(at_exit(&ProcessReport { map_at_exit: None, ..process }, Some(80)), "");
}

#[test]
fn json_is_exact() {
    let json: serde_json::Value = serde_json::from_str(&json::render(&subject()).unwrap()).unwrap();
    assert_eq!(json["pid"], 4711);
    assert_eq!(json["command"][4], "two words");
    let regions = json["regions"].as_array().unwrap();
    assert_eq!(regions.len(), subject().mappings.len());
    let expected = serde_json::json!({
        "start": "0x55d0c0000000", "end": "0x55d0c0021000", "size": 135_168, "resident": 45_056, "prot": "rw-",
        "sharing": "private", "kind": "heap", "name": "[heap]", "deleted": false, "offset": "0x0", "device": "00:00",
        "inode": 0, "pss": 45_056, "shared_clean": 0, "shared_dirty": 0, "private_clean": 4096,
        "private_dirty": 40_960, "anonymous": 45_056, "anon_huge_pages": 0, "swap": 8192, "locked": 0,
        "vm_flags": ["rd", "wr", "mr", "mw", "me", "ac", "sd"],
    });
    assert_eq!(regions.iter().find(|region| region["kind"] == "heap").unwrap(), &expected);
    let sum = |field: &str| regions.iter().map(|region| region[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(json["total"]["size"], sum("size"));
    assert_eq!(json["total"]["resident"], sum("resident"));
    let of_kinds = |field: &str| {
        json["totals"].as_array().unwrap().iter().map(|total| total[field].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(of_kinds("regions"), u64::try_from(regions.len()).unwrap());
    assert_eq!(of_kinds("private_dirty"), sum("private_dirty"));
    assert_eq!(of_kinds("swap"), 8192);
}
