"""Roles of dispatch in processes of their own, a project for them, and what they use."""

import os
import signal
import subprocess
import time

from machine import BIN, SCRATCH, run

# Longest wait for a fact, in seconds.
PATIENCE = 300


def status_kb(pid, field):
    """One figure of /proc/PID/status; 0 where there is no /proc."""
    try:
        with open("/proc/%d/status" % pid) as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def cpu_s(pid, fields):
    try:
        with open("/proc/%d/stat" % pid) as stat:
            words = stat.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(words[field - 3]) for field in fields) / os.sysconf("SC_CLK_TCK")


def until(what, fact, pause=0.05):
    deadline = time.monotonic() + PATIENCE
    while not fact():
        if time.monotonic() > deadline:
            raise SystemExit("error: waited %d s in vain: %s" % (PATIENCE, what))
        time.sleep(pause)


class Program:
    """A role of dispatch in a process of its own."""

    def __init__(self, name, *words, binary=BIN, stdin=subprocess.DEVNULL):
        self.log = open(os.path.join(SCRATCH, name + ".log"), "w+")
        self.process = subprocess.Popen([binary, *words], stdin=stdin, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def said(self, word):
        if self.process.poll() is not None:
            raise SystemExit("error: %s ended by itself; see above\n%s" % (self.log.name, self.text()[-3000:]))
        return next((line for line in self.text().splitlines() if word in line), None)

    def text(self):
        with open(self.log.name) as log:
            return log.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def make_project():
    path = os.path.join(SCRATCH, "project")
    os.mkdir(path)
    for number in range(20):
        with open(os.path.join(path, "file-%d.txt" % number), "w") as file:
            file.write("line\n" * 50)
    git = ["git", "-C", path, "-c", "user.name=Bench", "-c", "user.email=bench@example.com",
           "-c", "commit.gpgsign=false"]
    run([*git, "init", "--quiet"])
    run([*git, "add", "."])
    run([*git, "commit", "--quiet", "--message", "Twenty files"])
    run([BIN, "projects", "add", "bench", path])
