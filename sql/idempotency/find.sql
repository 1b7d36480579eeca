-- Who holds these keys, or held those that were erased. $1 shard[], $2 partner_id[], $3 client_msg_id[], $4 their hashes[].
with k as materialized (
  select * from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bytea[]) with ordinality
    as k(shard, partner_id, client_msg_id, key_hash, position)
)
select k.position as "position!", i.message_id as "message_id!", i.fingerprint as "fingerprint!",
  m.created_at as "created_at!"
from k
join idempotency i on i.shard = k.shard and i.partner_id = k.partner_id and i.client_msg_id = k.client_msg_id
join messages m on m.shard = i.shard and m.message_id = i.message_id
union all
select k.position, e.message_id, e.fingerprint, m.created_at
from k
join erased_keys e on e.partner_id = k.partner_id and e.key_hash = k.key_hash
join messages m on m.shard = k.shard and m.message_id = e.message_id
