//! How a run ends: statuses and signals that pass through, and no process that outlives it unasked.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use super::Behaviour;
use crate::job::{Ended, Job, Outcome};
use crate::lab::{Lab, SHORT, Side, User};

const PLAIN: Behaviour = Behaviour { name: "", needs: &["bash"], files: &[], check: |_| Ok(()) };

/// Every case.
pub(crate) const CASES: &[Behaviour] = &[
    Behaviour { name: "guest-kills-itself", check: kills_itself, ..PLAIN },
    Behaviour { name: "guest-kills-its-children", check: kills_children, ..PLAIN },
    Behaviour { name: "guest-kills-its-parent-process", check: kills_the_warden, ..PLAIN },
    Behaviour { name: "warden-killed", check: warden_killed, ..PLAIN },
    Behaviour { name: "warden-killed-busy", needs: &["python3"], check: warden_killed_busy, ..PLAIN },
    Behaviour { name: "warden-sigterm", check: |lab| signal_reaches_guest(lab, Signal::SIGTERM), ..PLAIN },
    Behaviour { name: "warden-sigint", check: |lab| signal_reaches_guest(lab, Signal::SIGINT), ..PLAIN },
    Behaviour { name: "warden-sighup", check: |lab| signal_reaches_guest(lab, Signal::SIGHUP), ..PLAIN },
    Behaviour { name: "terminal", needs: &["python3", "bash"], files: &["terminal.py"], check: terminal },
    Behaviour { name: "on-exit-kill", check: on_exit_kill, ..PLAIN },
    Behaviour { name: "on-exit-wait", check: on_exit_wait, ..PLAIN },
];

fn bash(lab: &Lab, options: &[&str], script: &str) -> Result<Outcome> {
    lab.run(options, &["bash", "-c", script])
}

fn ensure_end(outcome: &Outcome, ended: Ended, stdout: &str) -> Result<()> {
    ensure!(outcome.ended == ended, "not {ended:?}: {}", outcome.describe());
    ensure!(outcome.stdout == stdout, "does not say {stdout:?}: {}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "processes are left behind: {}", outcome.survivors.join("; "));
    Ok(())
}

fn kills_itself(lab: &Lab) -> Result<()> {
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("INT", 2), ("USR1", 10)] {
        let outcome = bash(lab, &["--verify"], &format!("ulimit -c 0; echo bye; kill -{signal} $$; sleep 60"))?;
        ensure_end(&outcome, Ended::Killed(number), "bye\n")?;
    }
    Ok(())
}

fn kills_children(lab: &Lab) -> Result<()> {
    let script = "for signal in KILL TERM; do
            sleep 100 & child=$!
            kill -$signal $child; status=0; wait $child 2>/dev/null || status=$?; echo $status
        done
        (sleep 100 & sleep 100 & wait) & sleep 0.1; kill -KILL $! $(ps -o pid= --ppid $!); wait 2>/dev/null
        exit 4";
    ensure_end(&bash(lab, &["--verify"], script)?, Ended::Code(4), "137\n143\n")
}

/// A guest of the same user may signal pagewarden; then nothing lives on.
fn kills_the_warden(lab: &Lab) -> Result<()> {
    let outcome = bash(lab, &[], "sleep 1000 & kill -KILL $PPID; sleep 1000")?;
    ensure!(outcome.ended == Ended::Killed(9), "pagewarden was not killed: {}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "processes live on: {}", outcome.survivors.join("; "));
    Ok(())
}

/// Starts a guest and waits until it has made the file `ready`.
fn start_until_ready(lab: &Lab, argv: &[&str]) -> Result<Job> {
    let job = Job::start(&mut lab.command(Side::Warden(&[]), User::Same, argv)?)?;
    if wait_for(&lab.path("ready"), Duration::from_secs(30)) {
        return Ok(job);
    }
    job.signal(Signal::SIGKILL).ok();
    bail!("the guest does not get ready: {}", job.finish(SHORT)?.describe())
}

fn wait_for(file: &Path, limit: Duration) -> bool {
    let started = Instant::now();
    while !file.exists() && started.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(5));
    }
    file.exists()
}

fn warden_killed(lab: &Lab) -> Result<()> {
    let script = "sleep 1000 & (setsid sleep 1000 &); (sleep 1000 | sleep 1000) & touch ready; wait";
    kill_and_look(lab, &["bash", "-c", script])
}

/// The same in the midst of memory calls, with threads.
fn warden_killed_busy(lab: &Lab) -> Result<()> {
    let script = "
import mmap, os, threading
def churn():
    while True:
        mmap.mmap(-1, 1 << 20).close()
for _ in range(4):
    threading.Thread(target=churn).start()
os.fork()
open('ready', 'w').close()
churn()";
    kill_and_look(lab, &["python3", "-c", script])
}

fn kill_and_look(lab: &Lab, argv: &[&str]) -> Result<()> {
    let job = start_until_ready(lab, argv)?;
    job.signal(Signal::SIGKILL)?;
    let outcome = job.finish(SHORT)?;
    ensure!(outcome.ended == Ended::Killed(9), "pagewarden was not killed: {}", outcome.describe());
    ensure!(outcome.survivors.is_empty(), "guests live on: {}", outcome.survivors.join("; "));
    Ok(())
}

fn signal_reaches_guest(lab: &Lab, signal: Signal) -> Result<()> {
    let name = signal.as_str().trim_start_matches("SIG");
    let caught = format!("trap 'echo caught {name}; exit 5' {name}; touch ready; while :; do sleep 0.05; done");
    let job = start_until_ready(lab, &["bash", "-c", &caught])?;
    job.signal(signal)?;
    ensure_end(&job.finish(SHORT)?, Ended::Code(5), &format!("caught {name}\n"))?;

    lab.refresh(User::Same, &[])?;
    // No program makes the file: a shell that waits for one takes SIGINT to be meant for that.
    let job = start_until_ready(lab, &["bash", "-c", ": > ready; exec sleep 1000"])?;
    job.signal(signal)?;
    ensure_end(&job.finish(SHORT)?, Ended::Killed(signal as i32), "")
}

/// Ctrl-Z, fg and ctrl-C at a shell, first natively and then with pagewarden between shell and program.
fn terminal(lab: &Lab) -> Result<()> {
    let warden = lab.warden()?.to_string_lossy().into_owned();
    for front in [&[][..], &[&warden, "run", "--"]] {
        let argv = [&["python3", "terminal.py"], front].concat();
        let outcome = Job::start(&mut lab.command(Side::Native, User::Same, &argv)?)?.finish(SHORT)?;
        ensure!(outcome.ended == Ended::Code(0), "in front of the program {front:?}: {}", outcome.describe());
        ensure!(outcome.survivors.is_empty(), "processes are left behind: {}", outcome.survivors.join("; "));
    }
    Ok(())
}

fn on_exit_kill(lab: &Lab) -> Result<()> {
    let script = "(setsid sleep 1000 &); sleep 1000 & exit 3";
    ensure_end(
        &lab.run_for(Duration::from_secs(20), &["--on-exit", "kill"], &["bash", "-c", script])?,
        Ended::Code(3),
        "",
    )
}

fn on_exit_wait(lab: &Lab) -> Result<()> {
    for options in [&[][..], &["--on-exit", "wait"]] {
        let outcome = bash(lab, options, "(sleep 0.7; echo late) & exit 3")?;
        ensure_end(&outcome, Ended::Code(3), "late\n")?;
        ensure!(outcome.elapsed >= Duration::from_millis(700), "it did not wait: {}", outcome.describe());
    }
    Ok(())
}
