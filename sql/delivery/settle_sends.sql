-- Writes sends, fenced as in settle.sql: deliveries that the provider accepted and from which nothing else follows. The
-- attempt and the event are recorded in the delivery's own row; attempt_history and event_history show them. Skips
-- deliveries of partners with endpoints, whose webhooks settle.sql writes.
-- One each per send: $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 provider[], $6 worker[], $7 claimed_at[],
-- $8 called_at[], $9 provider_ref[].
-- For all: $10 now, $11 and $12 the smallest and largest message_id (partition pruning), $13 status PROCESSING (bound
-- for the plan's sake, as in settle).
with head as (
  update deliveries d
  set status = 'SENT', lease_until = null, worker = null, event_seq = d.event_seq + 1::smallint, reason = null,
    provider = s.provider, settled_at = $10::timestamptz, receipt_due = null, sent_worker = s.worker,
    sent_claimed_at = s.claimed_at, sent_called_at = s.called_at, sent_ref = s.provider_ref
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[], $6::bigint[],
    $7::timestamptz[], $8::timestamptz[], $9::text[])
    as s(shard, message_id, no, attempt, provider, worker, claimed_at, called_at, provider_ref)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and d.message_id between $11 and $12 and d.status = ($13::text)::delivery_status and d.attempt = s.attempt
    and not exists (
      select from endpoints e
      where e.shard = d.shard and e.partner_id = d.partner_id and e.status in ('ACTIVE', 'PAUSED'))
  returning d.shard, d.message_id, d.no, d.cancel_requested, d.partner_id, d.lane
),
-- One new row per partner and lane of the batch: appended, so that no transaction waits for a shared row.
stat_changes as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, $10, lane, count(*), count(*), 0
  from head
  group by partner_id, lane
)
select shard, message_id, no, cancel_requested from head
