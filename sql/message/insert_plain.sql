-- Accepts messages of partners that have no endpoints and no erased keys, as most have none: the same as insert.sql
-- without the steps for them, and with as few steps as it can have, because a message that is written alone pays for
-- each. If a partner of the group has some, nothing is written and no row comes back: the caller runs insert.sql then.
-- One each per message, sorted by shard, partner and key (see insert.sql): $1 shard[], $2 message_id[], $3
-- partner_id[], $4 client_msg_id[] (may hold nulls), $5 fingerprint[], $6 kind[], $7 priority[], $8 detail[] (JSON
-- text), $9 created_at[], $10 scheduled_at[], $11 expires_at[].
-- One each per delivery: $12 position of its message in those arrays[], $13 no[], $14 lane[], $15 content[],
-- $16 max_attempts[], $17 recipient[], $19 recipient as the partner gave it[] (may hold nulls), $20 whether it has a
-- fallback[].
-- For all: $18 now (see insert.sql).
with guard as materialized (
  select not exists (
      select from endpoints e
      where e.shard = any($1) and e.partner_id = any($3) and e.status in ('ACTIVE', 'PAUSED'))
    and not exists (select from erased_keys k where k.partner_id = any($3)) as is_plain
),
new_keys as (
  insert into idempotency (shard, partner_id, client_msg_id, message_id, fingerprint)
  select shard, partner_id, client_msg_id, message_id, fingerprint
  from unnest($1::smallint[], $3::bigint[], $4::text[], $2::bigint[], $5::bytea[])
    as k(shard, partner_id, client_msg_id, message_id, fingerprint)
  where client_msg_id is not null and (select is_plain from guard)
  on conflict do nothing
  returning message_id
),
new_messages as (
  insert into messages (shard, message_id, partner_id, client_msg_id, kind, priority, detail, created_at, scheduled_at,
    expires_at)
  select shard, message_id, partner_id, client_msg_id, kind, priority, detail::jsonb, created_at, scheduled_at,
    expires_at
  from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[])
    as m(shard, message_id, partner_id, client_msg_id, kind, priority, detail, created_at, scheduled_at, expires_at)
  where (client_msg_id is null or message_id = any(array(select message_id from new_keys)))
    and (select is_plain from guard)
  returning message_id
),
-- The arrays of messages are read by position: those of ids and times at once, whatever the position.
new_deliveries as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, expires_at,
    recipient, written, has_fallback)
  select ($1)[position], ($2)[position], no, lane, max_attempts, content,
    case when ($10)[position] > $18 then 'SCHEDULED'::delivery_status else 'PENDING' end,
    ($3)[position], greatest(($10)[position], $18), ($11)[position], recipient, written, has_fallback
  from unnest($12::bigint[], $13::smallint[], $14::smallint[], $15::smallint[], $16::smallint[], $17::text[],
    $19::text[], $20::bool[]) as d(position, no, lane, content, max_attempts, recipient, written, has_fallback)
  where ($2)[position] = any(array(select message_id from new_messages))
)
select message_id from new_messages
