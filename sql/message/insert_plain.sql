-- Accepts messages of partners that have no endpoints and no erased keys, as most have none: the same as insert.sql
-- without the steps for them, which cost a message that is written alone a third of its CPU. If a partner of the group
-- has some, nothing is written, and one row with a null comes back: the caller runs insert.sql then.
-- One each per message: $1 shard[], $2 message_id[], $3 partner_id[], $4 client_msg_id[] (may hold nulls),
-- $5 fingerprint[], $6 kind[], $7 priority[], $8 detail[] (JSON text), $9 created_at[], $10 scheduled_at[],
-- $11 expires_at[].
-- One each per delivery: $12 position of its message in those arrays[], $13 no[], $14 lane[], $15 content[],
-- $16 max_attempts[], $17 recipient[], $19 recipient as the partner gave it[] (may hold nulls), $20 whether it has a
-- fallback[].
-- For all: $18 now (see insert.sql).
with guard as materialized (
  select exists (
      select from endpoints e
      where e.shard = any($1) and e.partner_id = any($3) and e.status in ('ACTIVE', 'PAUSED'))
    or exists (select from erased_keys k where k.partner_id = any($3)) as full_insert_needed
),
m as materialized (
  select * from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[],
    $8::text[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[]) with ordinality
    as m(shard, message_id, partner_id, client_msg_id, fingerprint, kind, priority, detail, created_at, scheduled_at,
      expires_at, position)
  where not (select full_insert_needed from guard)
),
new_keys as (
  insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
  select shard, partner_id, client_msg_id, message_id, fingerprint from m
  where client_msg_id is not null
  order by shard, partner_id, client_msg_id collate "C"
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
    $19::text[], $20::bool[]) as d(position, no, lane, content, max_attempts, recipient, written, has_fallback)
  join accepted f on f.position = d.position
)
select f.message_id as "message_id?"
from guard g
left join accepted f on not g.full_insert_needed
where g.full_insert_needed or f.message_id is not null
