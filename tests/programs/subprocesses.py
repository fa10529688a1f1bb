"""Children by posix_spawn, vfork and fork; pipes; statuses; a child that is killed; exec of what is not there."""
import os
import signal
import subprocess
import sys

print(subprocess.run(["echo", "run"], capture_output=True, text=True, check=True).stdout.strip())
print(subprocess.check_output("seq 1 1000 | wc -l", shell=True, text=True).strip())
print(subprocess.run(["bash", "-c", "exit 9"]).returncode)

child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"],
                         stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip())
child.kill()
print(child.wait())

filter_ = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(filter_.communicate("through a pipe")[0])

try:
    subprocess.run(["./not-there"])
except FileNotFoundError:
    print("not found")

children = [subprocess.Popen([sys.executable, "-c", f"print({n} ** 5)"], stdout=subprocess.PIPE, text=True)
            for n in range(6)]
print([c.communicate()[0].strip() for c in children])

spawned = os.posix_spawn("/bin/sh", ["sh", "-c", "kill -TERM $$"], os.environ)
print(os.WTERMSIG(os.waitpid(spawned, 0)[1]) == signal.SIGTERM)

sys.stdout.flush()
forked = os.fork()
if forked == 0:
    block = bytearray(8 << 20)
    os._exit(block[-1] + 5)
print(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))
print("subprocesses done")
