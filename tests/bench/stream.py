"""`scripts/bench stream`: what it costs to carry an agent's words to a reader, and many attempts at
once. The agents are scripted (`dispatch bench agent`); worker, server, Postgres and git are real."""

import argparse
import json
import os
import time
import urllib.request

from machine import BIN, SCRATCH, load, run, sql, table, verdict
from programs import PATIENCE, Program, cpu_s, make_project, status_kb, until

DELTAS, DELTA_BYTES = 32_768, 64
ROWS_MAX, RSS_MAX_MB = 400, 64
# What each of many attempts says: a short answer.
SHORT_DELTAS = 256

CATALOGUE = """
[agents.big]
path = "acp"
command = [{bin}, "bench", "agent", "{deltas}", "{bytes}"]

[agents.many]
path = "acp"
command = [{bin}, "bench", "agent", "{short}", "{bytes}", {gate}]
slots = {slots}
start_timeout = "10m"
"""


def submit(agent, count):
    rows = sql("INSERT INTO tasks (project, input, agent) SELECT 'bench', 'go', '%s' "
               "FROM generate_series(1, %d) RETURNING id" % (agent, count))
    return [int(row) for row in rows.splitlines()]


def read_stream(http, task):
    """All events of a task as a reader of server-sent events gets them."""
    events = []
    with urllib.request.urlopen("%s/api/v1/tasks/%d/events" % (http, task), timeout=PATIENCE) as answer:
        for line in answer:
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))
    return events


def said_text(deltas):
    return "".join("%0*d\n" % (DELTA_BYTES - 1, number) for number in range(deltas))


def big_answer(http, worker):
    before = cpu_s(worker.pid, [14, 15])
    began = time.monotonic()
    (task,) = submit("big", 1)
    events = read_stream(http, task)
    seconds = time.monotonic() - began
    told = [event for event in events if event["kind"] == "text"]
    text = "".join(event["payload"]["text"] for event in told)
    gap_free = [event["seq"] for event in events] == list(range(1, len(events) + 1))
    rows = int(sql("SELECT count(*) FROM events WHERE task_id = %d" % task))
    state = sql("SELECT state FROM task_status WHERE id = %d" % task)
    return {
        "whole": state == "completed" and gap_free and text == said_text(DELTAS),
        "rows": rows, "seconds": seconds, "bytes": len(text),
        "rss": status_kb(worker.pid, "VmHWM") / 1024, "cpu": cpu_s(worker.pid, [14, 15]) - before,
    }


def many_attempts(count, gate, worker):
    before, before_children = cpu_s(worker.pid, [14, 15]), cpu_s(worker.pid, [16, 17])
    began = time.monotonic()
    tasks = submit("many", count)
    ids = "(%s)" % ",".join(map(str, tasks))
    # An attempt whose text is stored has its worktree and its agent, which waits at the gate.
    until("%d attempts at once" % count, lambda: int(sql(
        "SELECT count(DISTINCT e.task_id) FROM leases l JOIN events e ON e.task_id = l.task_id "
        "WHERE e.kind = 'text' AND l.task_id IN " + ids)) == count, 0.25)
    started = time.monotonic() - began
    rss = status_kb(worker.pid, "VmRSS") / 1024
    with open(gate, "w"):
        pass
    began = time.monotonic()
    until("the ends", lambda: int(sql("SELECT count(*) FROM outcomes WHERE task_id IN " + ids)) == count, 0.25)
    ended = time.monotonic() - began
    whole = int(sql(
        "SELECT count(*) FROM (SELECT e.task_id FROM events e JOIN outcomes o ON o.task_id = e.task_id "
        "WHERE o.state = 'completed' AND e.kind = 'text' AND e.task_id IN %s GROUP BY e.task_id "
        "HAVING string_agg(e.payload ->> 'text', '' ORDER BY e.seq) = '%s') AS whole" % (ids, said_text(SHORT_DELTAS))))
    return {
        "whole": whole, "started": started, "ended": ended, "rss": rss,
        "rss_peak": status_kb(worker.pid, "VmHWM") / 1024,
        "cpu": cpu_s(worker.pid, [14, 15]) - before,
        "cpu_children": cpu_s(worker.pid, [16, 17]) - before_children,
    }


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench stream")
    parser.add_argument("--attempts", type=int, default=200)
    options = parser.parse_args()
    print("\nstream: %s; before: %s\n" % (sql("SELECT version()").split(" on ")[0], load()))
    gate, agents = os.path.join(SCRATCH, "gate"), os.path.join(SCRATCH, "agents.toml")
    with open(agents, "w") as file:
        file.write(CATALOGUE.format(bin=json.dumps(BIN), deltas=DELTAS, bytes=DELTA_BYTES, short=SHORT_DELTAS,
                                    gate=json.dumps(gate), slots=options.attempts))
    run([BIN, "migrate"])
    make_project()
    programs = []
    try:
        programs.append(Program("worker", "worker", "--agents", agents, "--slots", str(options.attempts),
                                "--data", os.path.join(SCRATCH, "data")))
        programs.append(Program("serve", "serve", "--listen", "127.0.0.1:0", "--without-token"))
        worker, server = programs
        until("the server", lambda: server.said("ready"))
        http = server.said("ready").rsplit(" ", 1)[1].rstrip("/")
        until("the agents", lambda: worker.said("") is not False and sql(
            "SELECT count(*) FROM available_agents WHERE status = 'ready'") == "2")
        idle = status_kb(worker.pid, "VmRSS") / 1024
        big = big_answer(http, worker)
        many = many_attempts(options.attempts, gate, worker)
    finally:
        for program in programs:
            program.stop()

    table(["one answer of 2 MB in 32,768 deltas", "figure", ""], [
        ["reaches a reader complete, byte by byte", "%d bytes" % big["bytes"], verdict(big["whole"])],
        ["at most %d event rows" % ROWS_MAX, big["rows"], verdict(big["rows"] <= ROWS_MAX)],
        ["worker's memory under %d MB" % RSS_MAX_MB, "%.0f MB (%.0f idle)" % (big["rss"], idle),
         verdict(big["rss"] < RSS_MAX_MB)],
        ["from the INSERT to the reader's last event", "%.2f s" % big["seconds"], ""],
        ["worker CPU", "%.2f s" % big["cpu"], ""],
    ])
    count = options.attempts
    table(["%d attempts at once on one worker" % count, "figure", ""], [
        ["completed, with their whole text", many["whole"], verdict(many["whole"] == count)],
        ["until all of them speak", "%.1f s" % many["started"], ""],
        ["from then until all have ended", "%.1f s" % many["ended"], ""],
        ["worker's memory while all run", "%.0f MB (peak %.0f)" % (many["rss"], many["rss_peak"]), ""],
        ["CPU of one attempt: worker", "%.0f ms" % (1000 * many["cpu"] / count), ""],
        ["CPU of one attempt: git and agents", "%.0f ms" % (1000 * many["cpu_children"] / count), ""],
    ])
    print("  after: %s\n" % load())
    if not big["whole"] or many["whole"] != count:
        raise SystemExit("error: something did not arrive; the figures above are worth nothing")


if __name__ == "__main__":
    main()
