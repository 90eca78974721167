-- Rows that belong to the end of an attempt, inside the transaction that ends its lease.
INSERT INTO events (task_id, seq, attempt, kind, payload)
SELECT $1::bigint, e.seq, $2::smallint, e.kind, e.payload
  FROM unnest($3::bigint[], $4::text[], $5::jsonb[]) AS e (seq, kind, payload)
ON CONFLICT (task_id, seq) DO NOTHING
