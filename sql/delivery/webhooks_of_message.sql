-- Webhooks that report on a message, oldest first.
-- $1 partner_id, $2 its shard, $3 message_id reported on, $4 rows at most.
select m.message_id, m.kind, m.created_at, d.no, d.recipient, d.status::text as "status!", d.ready_at, d.reason
from messages m
join deliveries d on d.shard = m.shard and d.message_id = m.message_id
where m.partner_id = $1 and m.shard = $2 and m.about = $3 and m.message_id <> $3
order by m.message_id, d.no
limit $4
