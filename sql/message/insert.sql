-- Accepts messages: writes them with their deliveries, idempotency keys and webhooks of acceptance in one statement,
-- and so in one commit, for as many requests as arrived together. A message whose key is taken is left out completely;
-- the returned ids are those written. Keys are inserted in the order of the arrays, which are sorted by shard, partner
-- and key, so that two groups cannot deadlock.
-- One each per message: $1 shard[], $2 message_id[], $3 partner_id[], $4 client_msg_id[] (may hold nulls), $5
-- fingerprint[], $6 kind[], $7 priority[], $8 detail[] (JSON text), $9 created_at[], $10 scheduled_at[], $11
-- expires_at[], $20 message_id of the webhook message, used if an endpoint subscribes to 'message.accepted'[], $21 lane
-- of that webhook[], $24 hash of the key[] (may hold nulls).
-- One each per delivery: $12 position of its message in those arrays[], $13 no[], $14 lane[], $15 content[], $16
-- max_attempts[], $17 recipient[], $19 recipient as the partner gave it[] (may hold nulls), $23 whether it has a
-- fallback[].
-- For all: $18 now (deliveries are ready from the time of writing, not from the arrival of the request: otherwise they
-- could appear below a lane's watermark), $22 max_attempts of a webhook.
with m as materialized (
  select * from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[],
    $8::text[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $20::bigint[], $21::smallint[],
    $24::bytea[]) with ordinality
    as m(shard, message_id, partner_id, client_msg_id, fingerprint, kind, priority, detail, created_at, scheduled_at,
      expires_at, webhook_message_id, webhook_lane, key_hash, position)
),
new_keys as (
  insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
  select shard, partner_id, client_msg_id, message_id, fingerprint from m
  -- Erased keys are taken as well. Most installations have none: then this reads an empty table once.
  where client_msg_id is not null and (not exists (select from erased_keys) or (
    select e.message_id from erased_keys e where e.partner_id = m.partner_id and e.key_hash = m.key_hash) is null)
  on conflict do nothing
  returning message_id
),
accepted as materialized (
  select m.* from m left join new_keys t on t.message_id = m.message_id
  where m.client_msg_id is null or t.message_id is not null
),
new_messages as (
  insert into messages (shard, message_id, partner_id, client_msg_id, kind, priority, detail, created_at, scheduled_at,
    expires_at)
  select shard, message_id, partner_id, client_msg_id, kind, priority, detail::jsonb, created_at, scheduled_at,
    expires_at
  from accepted
),
new_deliveries as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, expires_at,
    recipient, written, has_fallback)
  select f.shard, f.message_id, d.no, d.lane, d.max_attempts, d.content,
    case when f.scheduled_at > $18 then 'SCHEDULED'::delivery_status else 'PENDING' end,
    f.partner_id, greatest(f.scheduled_at, $18), f.expires_at, d.recipient, d.written, d.has_fallback
  from unnest($12::bigint[], $13::smallint[], $14::smallint[], $15::smallint[], $16::smallint[], $17::text[],
    $19::text[], $23::bool[]) as d(position, no, lane, content, max_attempts, recipient, written, has_fallback)
  join accepted f on f.position = d.position
),
-- Endpoints of the partners in this group. Most partners have none: then the steps below that use them read no row.
partner_endpoints as materialized (
  select e.shard, e.partner_id, e.endpoint_id, e.recipient, e.events
  from endpoints e
  where e.shard = any($1) and e.partner_id = any($3) and e.status in ('ACTIVE', 'PAUSED')
),
-- The first event of a message as a whole, for partners that have an endpoint.
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
  select shard, message_id, 0, 1, 0, 'message.accepted', created_at
  from accepted f
  where exists (select from partner_endpoints)
    and (shard, partner_id) in (select shard, partner_id from partner_endpoints)
),
subscriptions as materialized (
  select f.*, e.recipient, row_number() over (partition by f.message_id order by e.endpoint_id)::smallint as nth
  from accepted f
  join partner_endpoints e on e.shard = f.shard and e.partner_id = f.partner_id
  where exists (select from partner_endpoints) and (e.events is null or 'message.accepted' = any(e.events))
),
webhook_messages as (
  insert into messages (shard, message_id, partner_id, kind, priority, detail, created_at, about)
  select shard, webhook_message_id, partner_id, 'message.accepted', priority,
    jsonb_build_object('contents', jsonb_build_array(jsonb_build_object('body', '', 'event', jsonb_build_object('event',
      'message.accepted', 'no', 0, 'seq', 1, 'status', 'PENDING', 'occurred_at', created_at)))), $18, message_id
  from subscriptions
  where nth = 1
),
webhook_deliveries as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, recipient,
    about, told_at)
  select shard, webhook_message_id, nth, webhook_lane, $22, 0, 'PENDING', partner_id, $18, recipient, message_id,
    clock_timestamp()
  from subscriptions
)
select message_id as "message_id!",
  message_id in (select message_id from subscriptions) as "has_subscribers!"
from accepted
