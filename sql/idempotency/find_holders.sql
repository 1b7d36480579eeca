-- Finds the message that holds each key, or held it before the key was erased. Laterals with a limit: one index probe
-- per key, although these sessions plan without nested loops.
-- $1 shard[], $2 partner_id[], $3 client_msg_id[], $4 hash of the key[].
with k as materialized (
  select * from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bytea[]) with ordinality
    as k(shard, partner_id, client_msg_id, key_hash, position)
)
select k.position as "position!", h.message_id as "message_id!", h.fingerprint as "fingerprint!",
  m.created_at as "created_at!"
from k
cross join lateral (
  (
    select i.message_id, i.fingerprint
    from idempotency i
    where i.shard = k.shard and i.partner_id = k.partner_id and i.client_msg_id = k.client_msg_id
    limit 1
  )
  union all
  (
    select e.message_id, e.fingerprint
    from erased_keys e
    where e.partner_id = k.partner_id and e.key_hash = k.key_hash
    limit 1
  )
) h
cross join lateral (
  select m.created_at
  from messages m
  where m.shard = k.shard and m.partner_id = k.partner_id and m.message_id = h.message_id
  limit 1
) m
