"""`scripts/bench native`: what a step of the native agent costs besides its provider, and what a
running conversation holds. The provider is scripted (`fake-llm`); worker, tools, sandbox, Postgres and
git are real. The baseline is the same request to the same provider by a bare HTTP client."""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import time
import urllib.parse

from machine import SCRATCH, Span, load, run, sql, table
from programs import Program, cpu_s, make_project, status_kb, until
from machine import BIN

CATALOGUE = """
[providers.scripted]
api = "openai"
base_url = {base}
default_model = "m1"

[agents.native]
path = "native"
slots = {slots}
start_timeout = "10m"
permissions = {{ default = "allow" }}
"""


def script(answers):
    return "SCRIPT " + json.dumps(answers)


def steps(count):
    """A turn that reads a file so many times, and then ends."""
    look = {"calls": [{"name": "read", "input": {"path": "file-1.txt"}}]}
    return script([look] * count + [{"text": "Done."}])


def submit(prompt, count=1):
    quoted = prompt.replace("'", "''")
    rows = sql("INSERT INTO tasks (project, input, agent) SELECT 'bench', '%s', 'native' "
               "FROM generate_series(1, %d) RETURNING id" % (quoted, count))
    return [int(row) for row in rows.splitlines()]


def ended(tasks):
    ids = "(%s)" % ",".join(map(str, tasks))
    return int(sql("SELECT count(*) FROM outcomes WHERE state = 'completed' AND task_id IN " + ids)) == len(tasks)


def bodies(ledger):
    """The requests that the worker made, as it made them."""
    with open(ledger) as lines:
        entries = [json.loads(line) for line in lines]
    return [json.dumps(entry["body"]) for entry in entries if entry.get("body")]


def bare(base, requests):
    """Seconds of each request, made again by a client that does nothing with the answer."""
    host = urllib.parse.urlsplit(base).netloc
    seconds = []
    for body in requests:
        began = time.monotonic()
        client = http.client.HTTPConnection(host, timeout=60)
        client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        client.getresponse().read()
        client.close()
        seconds.append(time.monotonic() - began)
    return seconds


def one_turn(worker, count):
    """Seconds and processor time of a turn, its first and last step left out by taking two lengths."""
    span, cpu = Span(), cpu_s(worker.pid, [14, 15])
    tasks = submit(steps(count))
    until("a turn of %d steps" % count, lambda: ended(tasks), 0.02)
    span.end()
    spent = "SELECT extract(epoch FROM o.ended_at - o.started_at) FROM outcomes o WHERE o.task_id = %d" % tasks[0]
    return float(sql(spent)), cpu_s(worker.pid, [14, 15]) - cpu, span.postgres


def held(worker, count):
    """Memory that so many conversations in the middle of an answer hold, in the worker and in the
    programs of their tools."""
    before = status_kb(worker.pid, "VmRSS")
    tasks = submit(script([{"text": "I begin.", "stall": "after_text"}]), count)
    ids = "(%s)" % ",".join(map(str, tasks))
    until("%d conversations" % count, lambda: int(sql(
        "SELECT count(DISTINCT task_id) FROM events WHERE kind = 'text' AND task_id IN " + ids)) == count, 0.25)
    after = status_kb(worker.pid, "VmRSS")
    tools = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % name, "rb") as line:
                words = line.read().split(b"\0")
            if name.isdigit() and b"__tools" in words[1:2]:
                tools.append(status_kb(int(name), "VmRSS"))
        except OSError:
            pass
    began = time.monotonic()
    for task in tasks:
        sql("SELECT cancel_task(%d)" % task)
    until("the ends", lambda: int(sql("SELECT count(*) FROM outcomes WHERE task_id IN " + ids)) == count, 0.25)
    return (after - before) / count, statistics.median(tools or [0]), time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench native")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("\nnative: %s; before: %s\n" % (sql("SELECT version()").split(" on ")[0], load()))
    run([BIN, "migrate"])
    make_project()
    ledger, agents = os.path.join(SCRATCH, "ledger.jsonl"), os.path.join(SCRATCH, "agents.toml")
    programs = []
    try:
        llm = Program("llm", "--ledger", ledger, binary=os.environ["BENCH_FAKE_LLM"], stdin=subprocess.PIPE)
        programs.append(llm)
        until("the provider", lambda: llm.said("listening"))
        base = llm.said("listening").rsplit(" ", 1)[1].rstrip("/") + "/v1/"
        with open(agents, "w") as file:
            file.write(CATALOGUE.format(base=json.dumps(base), slots=options.conversations))
        worker = Program("worker", "worker", "--agents", agents, "--slots", str(options.conversations),
                         "--data", os.path.join(SCRATCH, "data"))
        programs.append(worker)
        until("the agent", lambda: worker.said("") is not False and sql(
            "SELECT count(*) FROM available_agents WHERE status = 'ready'") == "1")
        one_turn(worker, 3)
        few, many = [], []
        for _ in range(options.rounds):
            few.append(one_turn(worker, 10))
            many.append(one_turn(worker, 10 + options.steps))
        requests = [body for body in bodies(ledger)][-options.steps:]
        alone = statistics.median(bare(base, requests))
        kb, tools_kb, stopped = held(worker, options.conversations)
    finally:
        for program in programs:
            program.stop()

    def per_step(place):
        return statistics.median((m[place] - f[place]) / options.steps for f, m in zip(few, many))

    wall = per_step(0)
    table(["one step: a request, a file read, everything stored", "figure", "of the bare request"], [
        ["the bare request to the same provider", "%.2f ms" % (1000 * alone), "1.00"],
        ["the whole step", "%.2f ms" % (1000 * wall), "%.2f" % (wall / alone)],
        ["the worker's own part of it", "%.2f ms" % (1000 * (wall - alone)), "%.2f" % ((wall - alone) / alone)],
        ["worker CPU", "%.2f ms" % (1000 * per_step(1)), ""],
        ["Postgres CPU", "%.2f ms" % (1000 * per_step(2)), ""],
    ])
    table(["%d conversations at once, each in the middle of an answer" % options.conversations, "figure"], [
        ["worker's memory for one", "%.0f kB" % kb],
        ["the program of its tools", "%.0f kB" % tools_kb],
        ["until all are cancelled and stored", "%.1f s" % stopped],
    ])
    print("  after: %s\n" % load())


if __name__ == "__main__":
    main()
