-- Contents of messages whose deliveries were just claimed.
-- $1 shard[], $2 message_id[], $3 and $4 the smallest and largest of those ids (partition pruning).
select m.message_id, m.partner_id, m.about, m.kind, m.detail::text as "detail!", m.created_at
from unnest($1::smallint[], $2::bigint[]) as k(shard, message_id)
join messages m on m.shard = k.shard and m.message_id = k.message_id and m.message_id between $3 and $4
