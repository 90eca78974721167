"""`scripts/bench sandbox`: what each rung of the sandbox adds to the start of a program, beside a bare
spawn in the same run. The measuring is the product's (`dispatch bench sandbox`); this prints it."""

import argparse
import resource
import time

from machine import BIN, busy_cpu, load, run, table

WAYS = ["bare", "none", "landlock", "landlock+uid", "bubblewrap", "bubblewrap+gateway"]


def spent():
    """Seconds of processor that ended children of this program have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench sandbox")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()

    print("\nsandbox: /bin/echo in every way in turns, %d rounds; before: %s\n" % (options.rounds, load()))
    began, busy, own = time.monotonic(), busy_cpu(), spent()
    output = run([BIN, "bench", "sandbox", str(options.rounds)])
    seconds = time.monotonic() - began
    others = max(0.0, busy_cpu() - busy - (spent() - own)) / seconds
    figures = {}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == "RESULT":
            key, value = rest.split("=")
            figures[key] = int(value) / 1000
        elif word == "MISSING":
            way, why = rest.split(" ", 1)
            print("  not here: %s: %s" % (way, why))

    def cell(way, stage):
        p50, p99 = (figures["%s.%s.%s" % (way, stage, share)] for share in ("p50", "p99"))
        return "%.2f (%.2f)" % (p50, p99)

    def ratio(way, stage):
        return "%.1f" % (figures["%s.%s.p50" % (way, stage)] / figures["bare.%s.p50" % stage])

    table(["ms, p50 (p99)", "first byte", "to bare", "exit", "to bare", "nothing left", "before the spawn"], [
        [way, cell(way, "first_byte"), ratio(way, "first_byte"), cell(way, "exit"), ratio(way, "exit"),
         cell(way, "swept"), cell(way, "prepare") if way != "bare" else "–"]
        for way in WAYS if way + ".exit.p50" in figures])
    print("  other work on the machine meanwhile: %.1f cores; after: %s\n" % (others, load()))


if __name__ == "__main__":
    main()
