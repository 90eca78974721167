-- Whether an agent of a worker names this provider.
SELECT EXISTS (SELECT 1 FROM agent_offers o
                WHERE jsonb_typeof(o.capabilities -> 'providers') = 'array'
                  AND o.capabilities -> 'providers' @> jsonb_build_array(jsonb_build_object('name', $1::text))) AS named
