-- Writes webhook messages, each with a delivery to every endpoint of the partner that subscribes to the event. A
-- message without such an endpoint is not written.
-- One each per message: $1 shard[], $2 message_id[], $3 partner_id[], $4 event[], $5 priority[], $6 lane[], $7 detail[]
-- (JSON text), $8 about[], $9 endpoint_id[] (null: all endpoints that subscribe to the event; else this one alone,
-- subscribed or not).
-- For all: $10 now, $11 max_attempts of a webhook.
with subscriptions as materialized (
  select n.*, e.recipient, row_number() over (partition by n.message_id order by e.endpoint_id)::smallint as nth
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::smallint[], $7::text[],
    $8::bigint[], $9::bigint[]) as n(shard, message_id, partner_id, event, priority, lane, detail, about, endpoint_id)
  join endpoints e on e.shard = n.shard and e.partner_id = n.partner_id
  where e.shard = any($1) and e.partner_id = any($3) and e.status in ('ACTIVE', 'PAUSED')
    and case when n.endpoint_id is null then e.events is null or n.event = any(e.events)
      else e.endpoint_id = n.endpoint_id end
),
webhook_messages as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about)
  select shard, message_id, partner_id, event, priority, detail::jsonb, $10, about from subscriptions where nth = 1
)
insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient,
  about, told_at)
select shard, message_id, nth, lane, $11, 0, 'PENDING', partner_id, $10, recipient, about, clock_timestamp()
from subscriptions
returning shard, message_id, no, lane
