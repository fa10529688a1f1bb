//! One command under a time limit, with what it printed, and everything that it left behind.
//!
//! Output of a [`Job`] goes to files: a process that outlives the command and holds a pipe open cannot hang
//! the reader. [`pass`] leaves output to whoever started us. This process is a subreaper, so that whatever the
//! command starts stays a descendant of it and is found.
//! One job at a time may be asked for its survivors: all descendants count as the job's.
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// How long processes may take to be gone after the command has ended or was killed.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
/// How often to look for output that somebody reads while it comes.
const GLANCE: Duration = Duration::from_millis(20);
/// How long a command may take that nobody has set a limit for: several times the longest, on a slow machine.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// It called exit with this code.
    Code(i32),
    /// This signal killed it.
    Killed(i32),
    /// It was still running when its time was up.
    TimedOut,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
    /// Processes that were still there [`GRACE`] after the command had ended, and were then killed.
    pub(crate) survivors: Vec<String>,
}

impl Outcome {
    /// All that there is to say about it, for a failure message.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{:?} after {:.1} s", self.ended, self.elapsed.as_secs_f64());
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !output.is_empty() {
                text.push_str(&format!("\n--- {name}\n{}", tail(output)));
            }
        }
        text
    }
}

/// The last lines of `text`.
fn tail(text: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LINES);
    let head = if skipped == 0 { String::new() } else { format!("({skipped} lines before)\n") };
    head + &lines[skipped..].join("\n")
}

/// A command that runs.
pub(crate) struct Job {
    pid: Pid,
    started: Instant,
    stdout: File,
    stderr: File,
    /// What a thread sends that waits for the command; none once it has been received.
    end: Option<Receiver<End>>,
}

/// The end of a command, with the time at which it was seen.
struct End {
    status: std::io::Result<ExitStatus>,
    at: Instant,
}

impl Job {
    /// Starts `command` in a process group of its own.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        nix::sys::prctl::set_child_subreaper(true).context("becoming a subreaper")?;
        let stdout = tempfile::tempfile()?;
        let stderr = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let started = Instant::now();
        let (pid, end) = spawn(command)?;
        Ok(Self { pid, started, stdout, stderr, end: Some(end) })
    }

    /// Sends a signal to the command itself, not to its children.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).context("sending a signal")
    }

    /// Waits for the command, at most until `limit` after its start, and cleans up behind it.
    pub(crate) fn finish(self, limit: Duration) -> Result<Outcome> {
        self.finish_glancing(limit, limit, |_| ())
    }

    /// [`Job::finish`] that also gives `show` what the command prints, while it prints it.
    pub(crate) fn finish_showing(self, limit: Duration, mut show: impl FnMut(&[u8])) -> Result<Outcome> {
        let mut shown = 0;
        let mut piece = vec![0; 1 << 16];
        self.finish_glancing(limit, GLANCE, |file| {
            // The command writes to the same open file, whose place must not move.
            while let Some(read) = file.read_at(&mut piece, shown).ok().filter(|read| *read > 0) {
                shown += read as u64;
                show(&piece[..read]);
            }
        })
    }

    fn finish_glancing(mut self, limit: Duration, every: Duration, mut glance: impl FnMut(&File)) -> Result<Outcome> {
        let end = self.end.take().context("already finished")?;
        let (ended, at) = loop {
            let left = limit.saturating_sub(self.started.elapsed());
            match end.recv_timeout(left.min(every)) {
                Ok(end) => break (ended(end.status?), end.at),
                Err(_) if left.is_zero() => break (Ended::TimedOut, Instant::now()),
                Err(_) => glance(&self.stdout),
            }
        };
        glance(&self.stdout);
        if ended == Ended::TimedOut {
            self.kill_and_wait(&end);
        }
        let survivors = clear_away(ended);
        let (stdout, stderr) = (contents(&mut self.stdout)?, contents(&mut self.stderr)?);
        Ok(Outcome { ended, stdout, stderr, elapsed: at - self.started, survivors })
    }

    fn kill_and_wait(&self, end: &Receiver<End>) {
        killpg(self.pid, Signal::SIGKILL).ok();
        // One that left the group, or that cannot even be killed, is left to `clear_away`.
        end.recv_timeout(GRACE).ok();
    }
}

fn spawn(command: &mut Command) -> Result<(Pid, Receiver<End>)> {
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (sender, end) = mpsc::channel();
    std::thread::spawn(move || {
        let status = child.wait();
        // Nobody listens any more when the job was dropped.
        sender.send(End { status, at: Instant::now() }).ok();
    });
    Ok((pid, end))
}

/// Runs a command whose output is for the reader, who shall not wait for ever; an error unless it succeeds.
pub(crate) fn pass(command: &mut Command) -> Result<()> {
    pass_within(command, LIMIT)
}

fn pass_within(command: &mut Command, limit: Duration) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("becoming a subreaper")?;
    let (_, end) = spawn(command)?;
    let Ok(end) = end.recv_timeout(limit) else {
        let left = clear_away(Ended::TimedOut);
        bail!("{command:?} was not done after {} s; killed: {}", limit.as_secs(), left.join("; "));
    };
    let status = end.status?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Kills what is left and says what it was.
fn clear_away(ended: Ended) -> Vec<String> {
    let grace = if ended == Ended::TimedOut { Duration::ZERO } else { GRACE };
    let left = wait_until_alone(grace);
    let described = left.iter().map(|pid| describe_process(*pid)).collect();
    // Killing may race with a fork, so once is not always enough.
    for _ in 0..50 {
        let left = wait_until_alone(Duration::ZERO);
        if left.is_empty() {
            break;
        }
        for pid in left {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    described
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.kill_and_wait(&end);
            clear_away(Ended::TimedOut);
        }
    }
}

fn contents(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, signal) => Ended::Killed(signal.unwrap_or_default()),
    }
}

/// Reaps dead descendants and waits for living ones; those that still live after `grace`.
fn wait_until_alone(grace: Duration) -> Vec<i32> {
    let until = Instant::now() + grace;
    loop {
        let left = living_descendants();
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        std::thread::sleep(POLL);
    }
}

/// A line of `/proc/PID/stat`, as far as it matters here.
struct ProcessState {
    parent: i32,
    zombie: bool,
}

fn read_state(pid: i32) -> Option<ProcessState> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold brackets and blanks itself.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some(ProcessState { parent: fields.next()?.parse().ok()?, zombie })
}

fn living_descendants() -> Vec<i32> {
    let own = nix::unistd::getpid().as_raw();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let states: HashMap<i32, ProcessState> = pids.filter_map(|pid| Some((pid, read_state(pid)?))).collect();
    let mut tree = HashSet::from([own]);
    loop {
        let before = tree.len();
        tree.extend(
            states.iter().filter(|(_, state)| tree.contains(&state.parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if tree.len() == before {
            break;
        }
    }
    tree.remove(&own);
    let (dead, living): (Vec<i32>, Vec<i32>) = tree.into_iter().partition(|pid| states[pid].zombie);
    for pid in dead.into_iter().filter(|pid| states[pid].parent == own) {
        waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
    }
    living
}

fn describe_process(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// All descendants count as the job's, so one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// What the script did, and how many processes are there afterwards.
    fn run(script: &str, limit: Duration) -> (Outcome, usize) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = Job::start(Command::new("bash").args(["-c", script])).unwrap().finish(limit).unwrap();
        (outcome, living_descendants().len())
    }

    #[test]
    fn output_and_status_are_kept() {
        let (outcome, left) = run("echo out; echo err >&2; exit 7", Duration::from_secs(10));
        assert_eq!((outcome.ended, &*outcome.stdout, &*outcome.stderr), (Ended::Code(7), "out\n", "err\n"));
        assert_eq!((outcome.survivors.len(), left), (0, 0));
    }

    #[test]
    fn a_signal_is_not_a_code() {
        assert_eq!(run("kill -TERM $$", Duration::from_secs(10)).0.ended, Ended::Killed(15));
        assert_eq!(run("exit 143", Duration::from_secs(10)).0.ended, Ended::Code(143));
    }

    #[test]
    fn time_runs_out() {
        let (outcome, left) = run("echo begun; sleep 100", Duration::from_millis(300));
        assert_eq!((outcome.ended, &*outcome.stdout, left), (Ended::TimedOut, "begun\n", 0));
    }

    #[test]
    fn output_is_shown_while_it_comes() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = Vec::new();
        let script = "echo one; printf half; sleep 1; echo; head -c 200000 /dev/zero; echo end";
        let job = Job::start(Command::new("bash").args(["-c", script])).unwrap();
        let outcome = job.finish_showing(Duration::from_secs(10), |piece| pieces.push(piece.to_vec())).unwrap();
        assert_eq!(pieces[0], b"one\nhalf");
        assert_eq!(pieces.concat(), outcome.stdout.as_bytes());
        assert_eq!(outcome.stdout.len(), 9 + 200_000 + 4);
    }

    #[test]
    fn a_command_for_the_reader_passes_fails_or_takes_too_long() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = |script, limit| pass_within(Command::new("bash").args(["-c", script]), limit);
        pass("true", Duration::from_secs(10)).unwrap();
        assert!(pass("exit 3", Duration::from_secs(10)).unwrap_err().to_string().contains("status: 3"));
        let late = pass("setsid sleep 4321 & wait", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(late.contains("sleep 4321"), "{late}");
        assert_eq!(living_descendants().len(), 0);
    }

    #[test]
    fn survivors_are_named_and_killed() {
        let (outcome, left) = run("(setsid sleep 1234 &) ; exit 0", Duration::from_secs(10));
        assert_eq!((outcome.survivors.len(), left), (1, 0), "{:?}", outcome.survivors);
        assert!(outcome.survivors[0].ends_with("sleep 1234"));
    }
}
