"""Job control: types at an interactive shell that starts a program, behind the words in the arguments if any.

The program reads a line, is stopped by ctrl-Z, goes on with fg, and dies of ctrl-C.
"""
import os
import pty
import re
import select
import shlex
import sys
import time

PROGRAM = "echo ready-$((40 + 2)); read line; echo got-$line; echo again-$((40 + 3)); sleep 1000"
TIMEOUT = 20

child, terminal = pty.fork()
if child == 0:
    os.environ["PS1"] = "prompt> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])

seen = ""


def expect(pattern):
    """Waits until the pattern shows up after what was expected before."""
    global seen
    end = time.monotonic() + TIMEOUT
    while not (found := re.search(pattern, seen)):
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        if not ready:
            sys.exit(f"{pattern!r} does not show up in {seen!r}")
        seen += os.read(terminal, 4096).decode(errors="replace")
    seen = seen[found.end():]
    print("seen", pattern, flush=True)


def type_(text):
    os.write(terminal, text.encode())


expect("prompt> ")
type_(shlex.join([*sys.argv[1:], "bash", "-c", PROGRAM]) + "\n")
expect("ready-42")
type_("hello\n")
expect("got-hello")
expect("again-43")
time.sleep(0.2)
type_("\x1a")
expect("Stopped")
expect("prompt> ")
type_("jobs -s | grep -c bash | sed s/^/stopped-/\n")
expect("stopped-1")
expect("prompt> ")
type_("fg\n")
expect("sleep 1000")
time.sleep(0.2)
type_("\x03")
expect("prompt> ")
type_("echo status-$?\n")
expect("status-130")
expect("prompt> ")
type_("exit\n")
os.waitpid(child, 0)
print("terminal done")
