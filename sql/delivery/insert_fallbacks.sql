-- Inserts fallback deliveries that replace locked deliveries, with the event 'delivery.fallback' of the replaced ones.
-- Each delivery is replaced once: has_fallback is cleared, and the new number is then taken.
-- $1 shard[], $2 message_id[], $3 no of the replaced delivery[]; of the new one: $4 no[], $5 lane[], $6 content[], $7
-- max_attempts[], $8 recipient[], $9 recipient as the partner gave it[] (null: the same), $10 whether it has a fallback
-- itself[], $11 reason of the replacement[]; $12 now.
with origin as (
  update deliveries d
  set has_fallback = false, chain = coalesce(d.chain, d.no), event_seq = d.event_seq + 1
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::smallint[], $6::smallint[],
    $7::smallint[], $8::text[], $9::text[], $10::bool[], $11::text[])
    as s(shard, message_id, no, new_no, lane, content, max_attempts, recipient, written, has_fallback, reason)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no and d.has_fallback
  returning d.shard, d.message_id, d.no, d.attempt, d.event_seq, d.partner_id, d.chain, d.expires_at, s.new_no,
    s.lane as new_lane, s.content as new_content, s.max_attempts as new_attempts, s.recipient as new_recipient,
    s.written as new_written, s.has_fallback as new_has_fallback, s.reason
),
fallbacks as (
  insert into deliveries (shard, message_id, no, lane, max_attempts, content, status, partner_id, ready_at, expires_at,
    recipient, written, has_fallback, chain)
  select shard, message_id, new_no, new_lane, new_attempts, new_content, 'PENDING', partner_id, $12, expires_at,
    new_recipient, new_written, new_has_fallback, chain
  from origin
),
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
  select shard, message_id, no, event_seq, attempt, 'delivery.fallback', reason, $12 from origin
)
select shard, message_id, no, event_seq from origin
