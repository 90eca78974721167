-- What the attempt before left, and why it ended. Work that a later attempt has said something after is no
-- place to go on from: that attempt's own is lost.
SELECT w.base_commit, w.result_commit, w.changed, w.pack,
       left(regexp_replace(coalesce(a.error_class || ': ' || a.error, a.error, a.error_class, a.end_kind), '\s+', ' ', 'g'),
            500) AS ended,
       -- How often it gave its slot back for its provider since that answered last.
       (SELECT count(*) FROM turns u
         WHERE u.task_id = l.task_id AND u.attempt < l.attempt AND u.stop_reason = 'provider-wait'
           AND u.attempt >= (SELECT coalesce(max(s.attempt), 0) FROM steps s
                              WHERE s.task_id = l.task_id AND s.total_tokens IS NOT NULL)) AS provider_waits
  FROM leases l
  LEFT JOIN carried_work w ON w.task_id = l.task_id
        AND NOT EXISTS (SELECT 1 FROM messages m
                         WHERE m.conversation_id = $3::bigint AND m.task_id = w.task_id AND m.attempt > w.attempt
                           AND m.lost_at IS NULL)
  LEFT JOIN LATERAL (SELECT x.error_class, x.error, x.end_kind FROM attempts x
                      WHERE x.task_id = l.task_id AND x.attempt < l.attempt
                      ORDER BY x.attempt DESC LIMIT 1) a ON true
 WHERE l.task_id = $1::bigint AND l.token = $2::bigint
