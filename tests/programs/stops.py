"""A child is stopped, continued and ended, and its parent sees each of it; so with a threaded child."""
import os
import signal
import subprocess
import sys

CHILD = """
import threading, time
def spin():
    while True:
        bytearray(1 << 20)
for _ in range({threads}):
    threading.Thread(target=spin, daemon=True).start()
print("up", flush=True)
while True:
    time.sleep(0.01)
"""

for threads in [0, 3]:
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(threads=threads)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "up\n"
    for stop in [signal.SIGSTOP, signal.SIGTSTP, signal.SIGSTOP]:
        os.kill(child.pid, stop)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        print("stopped by", signal.Signals(os.WSTOPSIG(status)).name if os.WIFSTOPPED(status) else status)
        os.kill(child.pid, signal.SIGCONT)
        _, status = os.waitpid(child.pid, os.WCONTINUED)
        print("continued", os.WIFCONTINUED(status))
    os.kill(child.pid, signal.SIGTERM)
    _, status = os.waitpid(child.pid, 0)
    print("ended by", signal.Signals(os.WTERMSIG(status)).name)
print("stops done")
