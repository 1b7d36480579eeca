-- Who holds these keys. $1 shard[], $2 partner_id[], $3 client_msg_id[].
select k.position as "position!", i.message_id, i.fingerprint, m.created_at
from unnest($1::smallint[], $2::bigint[], $3::text[]) with ordinality as k(shard, partner_id, client_msg_id, position)
join idempotency i on i.shard = k.shard and i.partner_id = k.partner_id and i.client_msg_id = k.client_msg_id
join messages m on m.shard = i.shard and m.message_id = i.message_id
