SELECT coalesce(max(h.version), 0)::bigint AS version
  FROM refinery_schema_history h
