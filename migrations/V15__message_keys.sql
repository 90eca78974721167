-- A message may have a key: sending it again with the same key gives the message that is there.

ALTER TABLE inbox ADD COLUMN idempotency_key text CHECK (octet_length(idempotency_key) BETWEEN 1 AND 200);
CREATE UNIQUE INDEX inbox_idempotency_key ON inbox (conversation_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
COMMENT ON COLUMN inbox.idempotency_key IS 'Taken once in its conversation: SELECT * FROM send_message_once(task, text, key).';

-- As send_message(), once for each key of a conversation. What was sent before is told as it is now.
CREATE FUNCTION send_message_once(target bigint, text text, idempotency_key text, actor text DEFAULT session_user)
RETURNS TABLE (message_id bigint, state text, task_id bigint, replayed boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    conversation bigint := conversation_of(target);
    before inbox%ROWTYPE;
BEGIN
    PERFORM refuse_conversation_of_others(conversation);
    IF send_message_once.idempotency_key IS NULL
       OR octet_length(send_message_once.idempotency_key) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'an idempotency key has 1 to 200 bytes'
            USING ERRCODE = 'check_violation', HINT = 'Without a key: send_message(task, text).';
    END IF;
    -- One sender at a time in a conversation, as in send_message().
    PERFORM 1 FROM tasks t WHERE t.id = conversation FOR UPDATE;
    SELECT * INTO before FROM inbox i
     WHERE i.conversation_id = conversation AND i.idempotency_key = send_message_once.idempotency_key;
    IF FOUND THEN
        IF before.text IS DISTINCT FROM send_message_once.text THEN
            RAISE EXCEPTION 'the idempotency key belongs to message %, which says something else', before.id
                USING ERRCODE = 'unique_violation', HINT = 'Use a new key for a new message.';
        END IF;
        RETURN QUERY SELECT before.id, before.state, before.task_id, true;
        RETURN;
    END IF;
    SELECT s.message_id, s.state, s.task_id INTO message_id, state, task_id
      FROM send_message(target, send_message_once.text, send_message_once.actor) s;
    UPDATE inbox i SET idempotency_key = send_message_once.idempotency_key WHERE i.id = send_message_once.message_id;
    replayed := false;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION send_message_once IS 'As send_message(); the same key again gives the same message, and with another text it is refused.';

INSERT INTO rights (role, kind, object, privileges)
SELECT r, 'FUNCTION', 'send_message_once', 'EXECUTE' FROM unnest(ARRAY['submitter', 'reviewer']) r;

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = 'send_message_once'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
