SELECT drain_worker($1::uuid, $2::text) AS news
