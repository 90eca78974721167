INSERT INTO bells (worker_id, armed_until)
VALUES ($1::uuid, clock_timestamp() + $2::bigint * interval '1 millisecond')
ON CONFLICT (worker_id) DO UPDATE SET armed_until = EXCLUDED.armed_until
