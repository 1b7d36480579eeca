-- Makes dead letters PENDING again, in the overflow lane of their priority, so that new messages go first. They get new
-- attempts, no expiry, and lose a requested cancellation. possibly_sent stays, and is set for UNDETERMINED ones. Writes
-- the event, and the statistics on the day on which the delivery was counted. Fenced by the status and the number of
-- the last event: a delivery that changed since it was read is left alone. Keys come sorted, so that two batches cannot
-- deadlock.
-- $1 shard[], $2 message_id[], $3 no[], $4 event_seq[], $5 status[], $6 max_attempts[], $7 settled_at under which it is
-- counted[], change of the statistics: $8 total[], $9 success[], $10 failed[]; $11 now, $12 and $13 the smallest and
-- largest message_id (partition pruning).
with head as (
  update deliveries d
  set status = 'PENDING', ready_at = $11, lane = d.lane | 1::smallint, max_attempts = s.max_attempts,
    event_seq = d.event_seq + 1, reason = 'redriven', settled_at = null, expires_at = null, cancel_requested = false,
    possibly_sent = d.possibly_sent or s.was = 'UNDETERMINED'
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[]::delivery_status[],
    $6::smallint[], $7::timestamptz[], $8::smallint[], $9::smallint[], $10::smallint[])
    as s(shard, message_id, no, event_seq, was, max_attempts, counted_at, total, success, failed)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and d.message_id between $12 and $13 and d.status = s.was and d.event_seq = s.event_seq
  returning d.shard, d.message_id, d.no, d.attempt, d.event_seq, d.partner_id, d.lane, s.counted_at, s.total, s.success,
    s.failed
),
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
  select shard, message_id, no, event_seq, attempt, 'delivery.redriven', $11 from head
),
stat_changes as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, counted_at, lane, sum(total), sum(success), sum(failed)
  from head
  group by partner_id, counted_at, lane
)
select shard, message_id, no, lane, attempt, event_seq from head
