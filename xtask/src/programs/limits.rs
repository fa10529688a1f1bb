//! What the limits and the W^X policy refuse, and what goes on working under them.
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Behaviour;
use crate::job::{Ended, Outcome};
use crate::lab::{Lab, User};

const PLAIN: Behaviour = Behaviour { name: "", needs: &["gcc"], files: &["budget.c"], check: |_| Ok(()) };

/// Every case.
pub(crate) const CASES: &[Behaviour] = &[
    Behaviour { name: "commit-malloc", check: malloc_returns_null, ..PLAIN },
    Behaviour { name: "commit-python", needs: &["python3"], files: &[], check: python_sees_memory_error },
    Behaviour { name: "commit-break", check: the_break_stops, ..PLAIN },
    Behaviour { name: "commit-reserve-1t", check: reserving_is_free, ..PLAIN },
    Behaviour { name: "commit-noreserve", check: noreserve_is_charged, ..PLAIN },
    Behaviour { name: "commit-shared", check: shared_memory_is_charged, ..PLAIN },
    Behaviour { name: "commit-fork", check: fork_is_charged, ..PLAIN },
    Behaviour { name: "commit-four-children", check: children_share_the_limit, ..PLAIN },
    Behaviour { name: "reserve-limit", check: reserve_limit, ..PLAIN },
    Behaviour { name: "lock-limit", check: lock_limit, ..PLAIN },
    Behaviour { name: "map-limit", check: map_limit, ..PLAIN },
    Behaviour { name: "wx-deny", check: wx_deny, ..PLAIN },
    Behaviour {
        name: "wx-ordinary-programs",
        needs: &["python3", "git", "sqlite3", "bash"],
        files: &[],
        check: wx_ordinary,
    },
    Behaviour { name: "wx-node", needs: &["node"], files: &[], check: wx_node },
    Behaviour { name: "bypasses-refused", check: bypasses, ..PLAIN },
    Behaviour { name: "report-json", check: report_json, ..PLAIN },
    Behaviour { name: "report-text", check: report_text, ..PLAIN },
    Behaviour { name: "trace-file", check: trace_file, ..PLAIN },
    Behaviour { name: "vmmap-at-exit", check: vmmap_at_exit, ..PLAIN },
];

/// Builds `budget.c`, runs it under these options and returns what it said.
fn budget(lab: &Lab, options: &[&str], way: &str) -> Result<String> {
    lab.refresh(User::Same, &["budget.c"])?;
    lab.prepare(User::Same, &["gcc", "-O0", "-Wall", "-o", "budget", "budget.c"])?;
    let outcome = lab.run(options, &["./budget", way])?;
    ensure_clean(&outcome, 0)?;
    Ok(outcome.stdout)
}

fn ensure_clean(outcome: &Outcome, status: i32) -> Result<()> {
    ensure!(outcome.ended == Ended::Code(status), "not status {status}: {}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "processes are left behind: {}", outcome.survivors.join("; "));
    Ok(())
}

fn ensure_says(stdout: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(stdout.lines().any(|said| said == *line), "does not say {line:?} but\n{stdout}");
    }
    Ok(())
}

/// The number behind `count` in what the program said.
fn count(stdout: &str) -> Result<u64> {
    let line = stdout.lines().find_map(|line| line.strip_prefix("count ")).context("no count")?;
    Ok(line.parse()?)
}

fn malloc_returns_null(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--commit-limit", "256M"], "malloc")?;
    ensure_says(&said, &["malloc 512M: ENOMEM", "malloc 16M: ok", "malloc 1M again and again: ENOMEM"])?;
    let count = count(&said)?;
    ensure!((200..240).contains(&count), "{count} MiB besides the 16 MiB, of a limit of 256 MiB");
    ensure_says(&budget(lab, &["--commit-limit", "1G"], "malloc")?, &["malloc 512M: ok", "malloc 16M: ok"])
}

fn python_sees_memory_error(lab: &Lab) -> Result<()> {
    let script = "
try:
    block = bytearray(1 << 30)
    print('got it')
except MemoryError:
    print('MemoryError')
print('goes on with', len(bytearray(16 << 20)))";
    let limited = lab.run(&["--verify", "--commit-limit", "256M"], &["python3", "-c", script])?;
    ensure_clean(&limited, 0)?;
    ensure_says(&limited.stdout, &["MemoryError", "goes on with 16777216"])?;
    let roomy = lab.run(&["--commit-limit", "4G"], &["python3", "-c", script])?;
    ensure_clean(&roomy, 0)?;
    ensure_says(&roomy.stdout, &["got it", "goes on with 16777216"])
}

fn the_break_stops(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--commit-limit", "256M"], "break")?;
    ensure_says(&said, &["sbrk 512M: ENOMEM", "sbrk 1M: ok"])?;
    ensure_says(&budget(lab, &["--commit-limit", "1G"], "break")?, &["sbrk 512M: ok"])
}

fn reserving_is_free(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--commit-limit", "256M"], "reserve")?;
    ensure_says(&said, &["reserve 1T: ok", "commit 1G of it: ENOMEM", "commit 16M of it: ok", "drop it: ok"])
}

fn noreserve_is_charged(lab: &Lab) -> Result<()> {
    let limit = ["--commit-limit", "256M", "--noreserve"];
    ensure_says(&budget(lab, &limit[..2], "noreserve")?, &["noreserve 512M: ENOMEM"])?;
    ensure_says(&budget(lab, &[&limit[..], &["charge"]].concat(), "noreserve")?, &["noreserve 512M: ENOMEM"])?;
    ensure_says(&budget(lab, &[&limit[..], &["trust"]].concat(), "noreserve")?, &["noreserve 512M: ok"])
}

fn shared_memory_is_charged(lab: &Lab) -> Result<()> {
    let kinds = ["shared anonymous 512M", "memfd 512M", "SysV segment 512M"];
    let said = budget(lab, &["--commit-limit", "256M"], "shared")?;
    for kind in kinds {
        let refused = said.lines().any(|line| line.starts_with(kind) && !line.ends_with(": ok"));
        ensure!(refused, "{kind} is not refused:\n{said}");
    }
    let roomy = budget(lab, &["--verify", "--commit-limit", "4G"], "shared")?;
    ensure_says(&roomy, &kinds.map(|kind| format!("{kind}: ok")).each_ref().map(String::as_str))
}

fn fork_is_charged(lab: &Lab) -> Result<()> {
    let limit = ["--commit-limit", "200M", "--fork-charge"];
    let full = ["map 150M: ok", "fork: ENOMEM", "unmap: ok", "fork again: ok"];
    ensure_says(&budget(lab, &limit[..2], "fork")?, &full)?;
    ensure_says(&budget(lab, &[&limit[..], &["full"]].concat(), "fork")?, &full)?;
    ensure_says(&budget(lab, &[&limit[..], &["none"]].concat(), "fork")?, &["map 150M: ok", "fork: ok"])
}

fn children_share_the_limit(lab: &Lab) -> Result<()> {
    let after = "all is free again, malloc 100M: ok";
    let said = budget(lab, &["--verify", "--commit-limit", "200M"], "children")?;
    ensure_says(&said, &["1 of 4 children got it", after])?;
    ensure_says(&budget(lab, &["--commit-limit", "1G"], "children")?, &["4 of 4 children got it", after])
}

fn reserve_limit(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--reserve-limit", "512M"], "space")?;
    ensure_says(&said, &["reserve 1G: ENOMEM", "reserve 1M: ok"])?;
    ensure_says(&budget(lab, &["--reserve-limit", "4G"], "space")?, &["reserve 1G: ok"])
}

fn lock_limit(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--lock-limit", "1M"], "lock")?;
    ensure_says(&said, &["lock 8M: ENOMEM", "lock 64K: ok"])
}

fn map_limit(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--map-limit", "200"], "maps")?;
    ensure_says(&said, &["one more: ENOMEM"])?;
    let count = count(&said)?;
    ensure!((150..=200).contains(&count), "{count} mappings under a limit of 200 regions");
    Ok(())
}

fn wx_deny(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--verify", "--wx", "deny"], "executable")?;
    ensure_says(
        &said,
        &["map rwx: EACCES", "rw to rx: EACCES", "rw to rwx: EACCES", "map rx: ok", "rx to rwx: EACCES"],
    )?;
    let all = ["map rwx: ok", "rw to rx: ok", "rw to rwx: ok", "map rx: ok", "rx to rwx: ok"];
    ensure_says(&budget(lab, &["--wx", "allow"], "executable")?, &all)?;
    ensure_says(&budget(lab, &[], "executable")?, &all)
}

fn wx_ordinary(lab: &Lab) -> Result<()> {
    let programs: [(&[&str], &str); 4] = [
        (&["python3", "-c", "import json, threading; print(json.dumps([1, 2]))"], "[1, 2]\n"),
        (&["git", "hash-object", "/dev/null"], "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\n"),
        (&["sqlite3", ":memory:", "select 6 * 7"], "42\n"),
        (&["bash", "-c", "seq 3 | wc -l"], "3\n"),
    ];
    for (argv, says) in programs {
        let outcome = lab.run(&["--verify", "--wx", "deny"], argv)?;
        ensure_clean(&outcome, 0)?;
        ensure!(outcome.stdout == says, "{}: {}", argv[0], outcome.describe());
    }
    Ok(())
}

fn wx_node(lab: &Lab) -> Result<()> {
    let node = ["node", "-e", "console.log(6 * 7)"];
    let denied = lab.run(&["--wx", "deny"], &node)?;
    ensure!(denied.ended != Ended::TimedOut, "it hangs: {}", denied.describe());
    ensure!(denied.survivors.is_empty(), "processes are left behind: {}", denied.survivors.join("; "));
    if denied.ended == Ended::Code(0) {
        ensure!(denied.stdout == "42\n", "it ends well and says nothing: {}", denied.describe());
    } else {
        ensure!(denied.stderr.contains("--wx"), "nothing says that it was --wx deny: {}", denied.describe());
    }
    let allowed = lab.run(&["--wx", "allow"], &node)?;
    ensure_clean(&allowed, 0)?;
    ensure!(allowed.stdout == "42\n", "{}", allowed.describe());
    Ok(())
}

fn bypasses(lab: &Lab) -> Result<()> {
    let said = budget(lab, &["--commit-limit", "256M"], "bypass")?;
    for call in ["io_uring_setup", "userfaultfd", "ptrace", "x32"] {
        let line = said.lines().find(|line| line.starts_with(call)).context("a call is missing")?;
        let errno = line.rsplit(' ').next().unwrap_or_default();
        ensure!(["ENOSYS", "EPERM"].contains(&errno), "{line}: neither ENOSYS nor EPERM, so it was not refused");
    }
    ensure_says(&budget(lab, &["--commit-limit", "256M"], "old-entry")?, &["int 0x80: killed"])
}

fn report_json(lab: &Lab) -> Result<()> {
    budget(lab, &["--commit-limit", "256M", "--report-json", "report.json"], "malloc")?;
    let report: Value = serde_json::from_str(&fs::read_to_string(lab.path("report.json"))?)?;
    ensure!(report["commit_limit"] == 256 << 20, "commit_limit is {}", report["commit_limit"]);
    let peak = report["usage"]["committed_peak"].as_u64().context("no committed_peak")?;
    ensure!(peak > 200 << 20 && peak <= 256 << 20, "a peak of {peak} bytes under 256 MiB, nearly used up");
    ensure!(report["calls"].as_u64() > Some(20), "calls: {}", report["calls"]);
    ensure!(report["seconds"].as_f64() > Some(0.0), "seconds: {}", report["seconds"]);
    let refused = report["processes"][0]["refused"].as_array().context("no refused calls")?;
    let expected =
        |call: &Value| call["errno"] == "ENOMEM" && call["call"] == "mmap" && call["count"].as_u64() >= Some(2);
    ensure!(refused.iter().any(expected), "no refused mmap in {refused:?}");
    Ok(())
}

fn report_text(lab: &Lab) -> Result<()> {
    lab.prepare(User::Same, &["gcc", "-O0", "-o", "budget", "budget.c"])?;
    let outcome = lab.run(&["--commit-limit", "256M", "--report"], &["./budget", "malloc"])?;
    ensure_clean(&outcome, 0)?;
    for word in ["mmap", "ENOMEM", "256"] {
        ensure!(outcome.stderr.contains(word), "the report does not mention {word}: {}", outcome.describe());
    }
    let reported = outcome.stdout.lines().any(|line| !line.starts_with("malloc") && !line.starts_with("count"));
    ensure!(!reported, "the report is mixed into the output of the program: {}", outcome.describe());
    Ok(())
}

fn trace_file(lab: &Lab) -> Result<()> {
    budget(lab, &["--commit-limit", "256M", "--trace", "trace.json"], "reserve")?;
    let text = fs::read_to_string(lab.path("trace.json"))?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let huge = |event: &&Value| event["call"] == "mmap" && event["args"][1] == "0x10000000000";
    ensure!(events.iter().filter(huge).count() == 1, "the mmap of 1 TiB is not there once in {} lines", events.len());
    let refused = |event: &Value| event["call"] == "mprotect" && event["errno"] == "ENOMEM";
    ensure!(events.iter().any(refused), "the refused mprotect is not there");
    Ok(())
}

fn vmmap_at_exit(lab: &Lab) -> Result<()> {
    lab.prepare(User::Same, &["gcc", "-O0", "-o", "budget", "budget.c"])?;
    let outcome = lab.run(&["--vmmap-at-exit"], &["./budget", "space"])?;
    ensure_clean(&outcome, 0)?;
    for word in ["stack", "budget", "libc"] {
        ensure!(outcome.stderr.contains(word), "the map does not mention {word}: {}", outcome.describe());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_to_be_there_as_a_whole() {
        assert!(ensure_says("fork: ok\nfork again: ok\n", &["fork: ok"]).is_ok());
        assert!(ensure_says("fork again: ok\n", &["fork: ok"]).is_err());
        assert_eq!(count("a: ok\ncount 17\n").unwrap(), 17);
        assert!(count("a: ok\n").is_err());
    }
}
