UPDATE attempts SET ended_at = clock_timestamp(), end_kind = $3::text, error_class = $4::text, error = $5::text,
       exit_code = $6::integer, exit_signal = $7::integer, stderr_tail = $8::text, result_commit = $9::text,
       result_ref = $10::text, native_session_id = coalesce($11::text, native_session_id),
       first_output_at = $12::timestamptz, turn_ended_at = $13::timestamptz
 WHERE task_id = $1::bigint AND token = $2::bigint
