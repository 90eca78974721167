"""`scripts/bench queue`: the whole way of a task that does nothing (insert trigger, claim, spawn,
finish), beside what pgbench gets from a bare table in the same run."""

import argparse
import os
import statistics

from machine import BIN, POSTGRES_BIN, SCRATCH, Span, load, results, run, sql, table, verdict

CLIENTS = 8
BATCH = 1000

# The least that a queue must do: keep a row, mark whose it is, and take it away.
BASE_TABLE = """
CREATE TABLE IF NOT EXISTS bare_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, worker integer, payload text NOT NULL)
"""
BASE_FILL = "INSERT INTO bare_queue (payload) SELECT 'do nothing' FROM generate_series(1, %d)"
BASE_INSERT = "INSERT INTO bare_queue (payload) VALUES ('do nothing');\n"
# The public way to submit, by the same client as the bare insert.
TASK_INSERT = "INSERT INTO tasks (project, input, agent) VALUES ('bench', 'do nothing', 'noop');\n"
BASE_CLAIM = """
WITH taken AS (
    UPDATE bare_queue SET worker = :client_id
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM bare_queue WHERE worker IS NULL
                              ORDER BY id LIMIT %d FOR UPDATE SKIP LOCKED)) RETURNING id)
SELECT array_agg(id) AS ids FROM taken \\gset
DELETE FROM bare_queue WHERE id = ANY (:ids::bigint[]);
"""


def driver(*words):
    return results(run([BIN, "bench", "driver", *map(str, words)]))


def pgbench(name, script, clients, transactions):
    path = os.path.join(SCRATCH, name + ".sql")
    with open(path, "w") as file:
        file.write(script)
    output = run([os.path.join(POSTGRES_BIN, "pgbench"), "--no-vacuum", "--protocol=prepared", "--file=" + path,
                  "--client=%d" % clients, "--jobs=1", "--transactions=%d" % transactions])
    for line in output.splitlines():
        if line.startswith("tps = "):
            return float(line.split()[2])
    raise SystemExit("error: pgbench told no rate:\n" + output)


def drain_bare(tasks):
    sql("TRUNCATE bare_queue")
    span = Span()
    sql(BASE_FILL % tasks)
    filled = span.end()
    span = Span()
    rate = BATCH * pgbench("claim", BASE_CLAIM % BATCH, 2, tasks // BATCH // 2)
    return rate, filled, span.end()


def drain_ours(tasks):
    span = Span()
    enqueue = driver("enqueue", tasks)
    filled = span.end()
    span = Span()
    drained = driver("drain", tasks)
    return enqueue, filled, drained, span.end()


def spread(figures, form="%.0f"):
    return "%s (%s–%s)" % tuple(form % f for f in (statistics.median(figures), min(figures), max(figures)))


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench queue")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singles", type=int, default=8_000)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    tasks = max(options.tasks // (2 * BATCH), 1) * 2 * BATCH

    print("\nqueue: %d tasks, %d rounds; %s; %s; before: %s\n" % (
        tasks, options.rounds, sql("SELECT version()").split(" on ")[0], "fsync " + sql("SHOW fsync"), load()))
    sql(BASE_TABLE)
    driver("setup")
    bare, ours = [], []
    for _ in range(options.rounds):
        bare.append(drain_bare(tasks))
        ours.append(drain_ours(tasks))
    insert_bare, insert_ours, floor, start = [], [], [], []
    for _ in range(options.rounds):
        insert_bare.append(pgbench("insert", BASE_INSERT, CLIENTS, options.singles // CLIENTS))
        insert_ours.append(pgbench("task", TASK_INSERT, CLIENTS, options.singles // CLIENTS))
        driver("drain", options.singles // CLIENTS * CLIENTS)
        sql("TRUNCATE bare_queue")
        floor.append(1000 / pgbench("both", BASE_INSERT + BASE_CLAIM % 1, 1, options.samples))
        start.append(driver("latency", options.samples, 30))

    def per_task(spans, what):
        return statistics.median(getattr(span, what) for span in spans) / tasks

    def both(filled, drained, what):
        return per_task(filled, what) + per_task(drained, what)

    rate_bare, rate_ours = [b[0] for b in bare], [o[2]["drain_per_second"] for o in ours]
    wal_bare = both([b[1] for b in bare], [b[2] for b in bare], "wal")
    wal_in, wal_out = per_task([o[1] for o in ours], "wal"), per_task([o[3] for o in ours], "wal")
    cpu_bare = 1e6 * per_task([b[2] for b in bare], "postgres")
    cpu_ours = 1e6 * per_task([o[3] for o in ours], "postgres")
    cpu_worker = [o[2]["drain_worker_cpu_us_per_task"] for o in ours]
    p50, p99 = [s["latency_p50_ms"] for s in start], [s["latency_p99_ms"] for s in start]

    def ratio(mine, theirs):
        return "%.2f" % (mine / theirs) if theirs else "–"

    middle = statistics.median
    table(["what", "dispatch", "pgbench, bare table", "ratio"], [
        ["drain, tasks/s", spread(rate_ours), spread(rate_bare), ratio(middle(rate_ours), middle(rate_bare))],
        ["single inserts/s, %d connections" % CLIENTS, spread(insert_ours), spread(insert_bare),
         ratio(middle(insert_ours), middle(insert_bare))],
        ["start p50, ms", spread(p50, "%.2f"), spread(floor, "%.2f") + " insert + claim + delete",
         ratio(middle(p50), middle(floor))],
        ["start p99, ms", spread(p99, "%.2f"), "–", "–"],
        ["WAL, bytes per task", "%.0f = %.0f enqueue + %.0f drain" % (wal_in + wal_out, wal_in, wal_out),
         "%.0f" % wal_bare, ratio(wal_in + wal_out, wal_bare)],
        ["Postgres CPU of the drain, µs per task", "%.1f" % cpu_ours, "%.1f" % cpu_bare, ratio(cpu_ours, cpu_bare)],
        ["worker CPU of the drain, µs per task", spread(cpu_worker, "%.1f"), "–", "–"],
        ["worker resident memory, MB", "%.0f" % (max(o[2]["drain_worker_rss_peak_kb"] for o in ours) / 1024), "–", "–"],
    ])
    others = [max(0.0, span.busy - span.postgres - cpu * tasks / 1e6) / span.seconds
              for (_, _, _, span), cpu in zip(ours, cpu_worker)]
    print("  other work on the machine during the drains: %s cores; after: %s\n" % (spread(others, "%.1f"), load()))
    table(["aim, on a quiet machine with 2 cores", "figure", ""], [
        ["at least 60,000 tasks/s", "%.0f" % middle(rate_ours), verdict(middle(rate_ours) >= 60_000)],
        ["start p50 under 2 ms", "%.2f" % middle(p50), verdict(middle(p50) < 2)],
        ["at most 1,200 bytes of WAL", "%.0f" % (wal_in + wal_out), verdict(wal_in + wal_out <= 1200)],
    ])


if __name__ == "__main__":
    main()
