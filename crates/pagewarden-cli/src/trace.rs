//! `--trace FILE`: each memory call as a line of JSON.
//!
//! The fields of a line, in this order:
//!
//! | field | value |
//! |---|---|
//! | `seconds` | since the start of the run, to the microsecond |
//! | `pid`, `tid` | the process and the thread |
//! | `call` | the name of the call |
//! | `args` | the argument registers that it uses, hexadecimal text: JSON numbers do not hold 64 bits everywhere |
//! | `plan` | what the manager planned, an operation each, in words |
//! | `value` | the answer, hexadecimal text; absent if the answer is an error |
//! | `errno` | the name of the error; absent if there is none |
//! | `reason` | whose decision a refusal was; absent if nothing was refused |
//! | `committed` | committed memory of the process after the call, in bytes |

use std::io::{self, BufWriter, Write};

use pagewarden_linux::{CallEvent, Observer};
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    seconds: f64,
    pid: i32,
    tid: i32,
    call: &'a str,
    args: Vec<String>,
    plan: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    committed: u64,
}

impl<'a> Line<'a> {
    fn new(event: &'a CallEvent) -> Self {
        let hex = |word: u64| format!("{word:#x}");
        Self {
            seconds: (event.seconds * 1e6).round() / 1e6,
            pid: event.pid,
            tid: event.tid,
            call: event.call,
            args: event.args.iter().copied().map(hex).collect(),
            plan: &event.plan,
            value: event.value.map(hex),
            errno: event.errno.as_deref(),
            reason: event.reason.as_deref(),
            committed: event.committed,
        }
    }
}

/// Writes events until a write fails; from then on it only remembers why.
pub(crate) struct Trace<W: Write> {
    out: BufWriter<W>,
    failure: Option<io::Error>,
}

impl<W: Write> Trace<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, out), failure: None }
    }

    fn write(&mut self, event: &CallEvent) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line::new(event))?;
        self.out.write_all(b"\n")
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first write that failed.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match self.failure.take() {
            Some(failure) => {
                // What is left in the buffer would follow a gap; it goes with the parts.
                let _ = self.out.into_parts();
                Err(failure)
            }
            None => self.out.flush(),
        }
    }
}

impl<W: Write> Observer for Trace<W> {
    fn call(&mut self, event: &CallEvent) {
        if self.failure.is_none() {
            self.failure = self.write(event).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> CallEvent {
        CallEvent {
            seconds: 0.123_456_789,
            pid: 10,
            tid: 11,
            call: "mmap",
            args: vec![0, u64::MAX],
            plan: vec!["map 1000-2000 rw-".to_owned()],
            value: Some(0x1000),
            errno: None,
            reason: None,
            committed: 4096,
        }
    }

    #[test]
    fn a_line_a_call() {
        let mut out = Vec::new();
        let mut trace = Trace::new(&mut out);
        trace.call(&event());
        let refused = CallEvent {
            value: None,
            errno: Some("ENOMEM".to_owned()),
            reason: Some("commit limit".to_owned()),
            plan: Vec::new(),
            ..event()
        };
        trace.call(&refused);
        trace.finish().unwrap();
        let expected = concat!(
            r#"{"seconds":0.123457,"pid":10,"tid":11,"call":"mmap","args":["0x0","0xffffffffffffffff"],"#,
            r#""plan":["map 1000-2000 rw-"],"value":"0x1000","committed":4096}"#,
            "\n",
            r#"{"seconds":0.123457,"pid":10,"tid":11,"call":"mmap","args":["0x0","0xffffffffffffffff"],"#,
            r#""plan":[],"errno":"ENOMEM","reason":"commit limit","committed":4096}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// Takes `room` bytes, then fails.
    struct Full<'a> {
        room: usize,
        failures: &'a std::cell::Cell<u32>,
    }

    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room < bytes.len() {
                self.failures.set(self.failures.get() + 1);
                return Err(io::Error::other("no room"));
            }
            self.room -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failing_file_is_tried_once_and_told_once() {
        let failures = std::cell::Cell::new(0);
        let mut trace = Trace::new(Full { room: 100_000, failures: &failures });
        for _ in 0..5000 {
            trace.call(&event());
        }
        assert_eq!(failures.get(), 1);
        assert_eq!(trace.finish().unwrap_err().to_string(), "no room");
        assert_eq!(failures.get(), 1);
    }

    #[test]
    fn a_failure_at_the_very_end_is_told_too() {
        let failures = std::cell::Cell::new(0);
        let mut trace = Trace::new(Full { room: 0, failures: &failures });
        trace.call(&event());
        assert_eq!(trace.finish().unwrap_err().to_string(), "no room");
    }
}
