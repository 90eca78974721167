"""What the measurements share: Postgres' log position and processor time, programs to run, and
what else the machine was doing meanwhile. Run by scripts/bench, which sets the environment."""

import os
import signal
import subprocess
import sys
import time

BIN = os.environ["BENCH_BIN"]
SCRATCH = os.environ["BENCH_SCRATCH"]
POSTGRES_BIN = os.environ["BENCH_POSTGRES_BIN"]
TICKS = os.sysconf("SC_CLK_TCK")
# Reading processor times needs /proc; elsewhere the columns stay empty.
HAS_PROC = os.path.exists("/proc/self/stat")

# An exception ends what was started; the default of this signal would leave it running.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(command, **options):
    """The output of a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise SystemExit("error: %s failed:\n%s%s" % (" ".join(command), done.stdout[-2000:], done.stderr[-2000:]))
    return done.stdout


def sql(text):
    """One value, or several separated by |."""
    psql = os.path.join(POSTGRES_BIN, "psql")
    return run([psql, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text]).strip()


def results(output):
    pairs = (line[len("RESULT "):].split("=", 1) for line in output.splitlines() if line.startswith("RESULT "))
    return {key: float(value) for key, value in pairs}


def _ticks(pid, fields):
    try:
        with open("/proc/%d/stat" % pid) as stat:
            words = stat.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return sum(int(words[field - 3]) for field in fields)


def _children(parent):
    for name in os.listdir("/proc"):
        if name.isdigit() and _ticks(int(name), [4]) == parent:
            yield int(name)


def postgres_cpu():
    """Seconds that the server and all its processes, ended ones included, have used."""
    if not HAS_PROC:
        return 0.0
    with open(os.path.join(SCRATCH, "pg/data/postmaster.pid")) as file:
        postmaster = int(file.readline())
    live = sum(_ticks(pid, [14, 15]) for pid in _children(postmaster))
    return (live + _ticks(postmaster, [14, 15, 16, 17])) / TICKS


def busy_cpu():
    """Seconds that anything on the machine has used."""
    if not HAS_PROC:
        return 0.0
    with open("/proc/stat") as stat:
        words = [int(word) for word in stat.readline().split()[1:]]
    return (sum(words[:8]) - words[3] - words[4]) / TICKS


class Span:
    """What Postgres wrote and burnt, and what else ran, between its start and `end`."""

    def __init__(self):
        self.postgres, self.busy, self.began = postgres_cpu(), busy_cpu(), time.monotonic()
        self.wal = sql("SELECT pg_current_wal_insert_lsn()")

    def end(self):
        self.wal = int(sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '%s')" % self.wal))
        self.seconds = time.monotonic() - self.began
        self.postgres = postgres_cpu() - self.postgres
        self.busy = busy_cpu() - self.busy
        return self


def load():
    return "load average %.1f %.1f %.1f on %d cores" % (*os.getloadavg(), os.cpu_count())


def table(head, rows):
    rows = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for number, row in enumerate(rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
    print(flush=True)


def verdict(holds):
    return "holds" if holds else "MISSED"
