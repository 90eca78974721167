SELECT resume_provider($1::text, $2::text) AS was_paused
