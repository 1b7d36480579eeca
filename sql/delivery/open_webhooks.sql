-- For endpoints that want the events of a message in order: of each message the first webhooks that have not ended.
-- $1 shard[], $2 message told of[], $3 recipient[], $4 how many of each.
select k.about as "about!", k.recipient as "recipient!", d.message_id, d.ready_at
from unnest($1::smallint[], $2::bigint[], $3::text[]) as k(shard, about, recipient)
cross join lateral (
  select d.message_id, d.ready_at
  from messages m
  join deliveries d on d.shard = m.shard and d.message_id = m.message_id
  where m.shard = k.shard and m.about = k.about and d.recipient = k.recipient and d.lane >= 66
    and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
  order by m.message_id
  limit $4
) d
order by k.about, k.recipient, d.message_id
