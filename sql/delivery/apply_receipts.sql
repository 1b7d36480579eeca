-- Writes the status that receipts, or their absence, give to deliveries that the caller has locked, with events and
-- statistics. A delivery that was settled before keeps its settled_at, and so its day in the statistics.
-- $1 shard[], $2 message_id[], $3 no[], $4 status[], $5 event[], $6 reason[], $7 attempt that the receipt is about[],
-- $8 its provider[], $9 receipt_due[], change of the statistics: $10 total[], $11 success[], $12 failed[]; $13 now.
with head as (
  update deliveries d
  set status = s.status, event_seq = d.event_seq + 1, reason = s.reason, provider = coalesce(s.provider, d.provider),
    settled_at = coalesce(d.settled_at, $13), receipt_due = s.receipt_due,
    has_fallback = d.has_fallback and s.status <> 'DELIVERED'
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::text[]::delivery_status[], $5::text[], $6::text[],
    $7::smallint[], $8::text[], $9::timestamptz[], $10::smallint[], $11::smallint[], $12::smallint[])
    as s(shard, message_id, no, status, event, reason, attempt, provider, receipt_due, total, success, failed)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
  returning d.shard, d.message_id, d.no, d.event_seq, d.partner_id, d.lane, d.settled_at, d.provider, s.event, s.reason,
    s.attempt, s.total, s.success, s.failed
),
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
  select shard, message_id, no, event_seq, attempt, event, reason, $13 from head
),
stat_changes as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, settled_at, lane, sum(total), sum(success), sum(failed)
  from head
  where (total, success, failed) <> (0, 0, 0)
  group by partner_id, settled_at, lane
)
select shard, message_id, no, event_seq, provider from head
