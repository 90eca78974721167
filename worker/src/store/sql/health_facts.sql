-- What the health of a fleet is judged by, of the database's side.
SELECT h.version, h.version_num, h.now, h.connections, h.max_connections, h.oldest_transaction_s,
       h.prepared_transactions, h.idle_slots, h.live_workers, h.known_agents, h.ready_agents, h.paused_providers,
       h.open_questions
  FROM fleet_health h
