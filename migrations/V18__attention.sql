-- What waits for a person, as a column of task_status and my_tasks: permission, conflict, review, blocked
-- or failed. Where two apply, the first of them.

CREATE INDEX outcomes_failed ON outcomes (task_id) WHERE state = 'failed';

-- The columns before are as they were.
CREATE OR REPLACE VIEW task_status AS
SELECT t.id, t.project,
       coalesce(t.conversation_id, t.id) AS conversation_id,
       CASE WHEN o.task_id IS NOT NULL THEN o.state
            WHEN l.task_id IS NOT NULL THEN 'running' ELSE 'pending' END AS state,
       l.phase,
       CASE WHEN o.task_id IS NOT NULL OR l.task_id IS NOT NULL THEN NULL
            WHEN w.task_id IS NOT NULL THEN w.reason
            WHEN k.task_id IS NOT NULL THEN
                 CASE WHEN k.conversation_id IS NOT NULL THEN 'the conversation is busy'
                      ELSE 'limit ' || k.limit_key END
            WHEN NOT EXISTS (SELECT 1 FROM agent_offers a WHERE a.name = t.agent
                              AND a.status = 'ready' AND a.expires_at > now())
                 THEN CASE WHEN EXISTS (SELECT 1 FROM agent_offers a WHERE a.name = t.agent
                                         AND a.status = 'loading' AND a.expires_at > now())
                           THEN 'agent ' || t.agent || ' is being probed'
                           ELSE left('no live worker offers agent ' || t.agent || coalesce(
                                (SELECT ': ' || a.error FROM agent_offers a
                                  WHERE a.name = t.agent AND a.expires_at > now() AND a.error IS NOT NULL
                                  ORDER BY a.probed_at DESC LIMIT 1), ''), 300) END
            ELSE 'a free slot' END AS waiting_reason,
       CASE WHEN w.task_id IS NOT NULL THEN w.run_at END AS runs_at,
       t.agent, a.execution_path, coalesce(a.model, t.model) AS model,
       coalesce(o.attempt, l.attempt, w.attempt - 1, k.attempt - 1, 0) AS attempts,
       o.error_class, o.error, o.output_summary, o.cost_tokens, o.cost,
       c.id AS change_id, c.state AS change_state,
       t.priority, t.submitted_by, t.created_at, t.run_at,
       coalesce(o.started_at, l.started_at) AS started_at, o.ended_at,
       l.worker_id, l.cancel_requested_at, t.input,
       CASE WHEN l.task_id IS NOT NULL AND EXISTS (
                 SELECT 1 FROM permission_requests q WHERE q.task_id = t.id AND q.status = 'pending')
                 THEN 'permission'
            WHEN c.state = 'conflicted' THEN 'conflict'
            WHEN c.state = 'pending' THEN 'review'
            WHEN coalesce(o.task_id, l.task_id, w.task_id, k.task_id) IS NULL AND NOT EXISTS (
                 SELECT 1 FROM agent_offers a WHERE a.name = t.agent
                    AND a.status IN ('ready', 'loading') AND a.expires_at > now())
                 THEN 'blocked'
            WHEN o.state = 'failed' AND coalesce(c.state, 'superseded') = 'superseded' AND NOT EXISTS (
                 SELECT 1 FROM tasks n WHERE n.conversation_id = coalesce(t.conversation_id, t.id) AND n.id > t.id)
                 THEN 'failed' END AS attention
  FROM tasks t
  LEFT JOIN outcomes o ON o.task_id = t.id
  LEFT JOIN leases l ON l.task_id = t.id
  LEFT JOIN later_tasks w ON w.task_id = t.id
  LEFT JOIN parked_tasks k ON k.task_id = t.id
  LEFT JOIN LATERAL (SELECT x.execution_path, x.model FROM attempts x WHERE x.task_id = t.id
                      ORDER BY x.attempt DESC LIMIT 1) a ON true
  LEFT JOIN LATERAL (SELECT p.id, p.state FROM pending_changes p WHERE p.task_id = t.id
                      ORDER BY p.id DESC LIMIT 1) c ON true;
COMMENT ON COLUMN task_status.attention IS 'What waits for a person: permission: its agent asks; conflict: its approved change does not apply; review: its change is to be decided; blocked: no live worker offers its agent; failed: nothing follows it in its conversation, and no change of it was decided. NULL: nothing.';

CREATE OR REPLACE VIEW my_tasks WITH (security_barrier) AS
SELECT s.id, s.project, s.conversation_id, s.state, s.phase, s.waiting_reason, s.runs_at, s.agent,
       s.execution_path, s.model, s.attempts, s.error_class, s.error, s.output_summary, s.cost_tokens,
       s.cost, s.change_id, s.change_state, s.priority, s.submitted_by, s.created_at, s.run_at,
       s.started_at, s.ended_at, s.worker_id, s.cancel_requested_at, s.input, s.attention
  FROM task_status s
 WHERE s.submitted_by = session_user
    OR (s.conversation_id <> s.id
        AND EXISTS (SELECT 1 FROM tasks t WHERE t.id = s.conversation_id AND t.submitted_by = session_user));
