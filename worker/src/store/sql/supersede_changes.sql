-- A newer change of the same conversation takes the place of open older ones.
UPDATE pending_changes c SET state = 'superseded', superseded_by = $2::bigint, decided_at = now()
 WHERE c.state IN ('pending', 'conflicted') AND c.id IS DISTINCT FROM $2
   AND c.task_id IN (SELECT t.id FROM tasks t WHERE t.id = $1::bigint OR t.conversation_id = $1)
