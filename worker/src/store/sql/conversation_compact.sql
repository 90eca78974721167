SELECT compact_conversation($1::bigint, $2::text) AS at
