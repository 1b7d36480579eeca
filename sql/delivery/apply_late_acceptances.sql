-- Changes deliveries to SENT, over INAPP (lanes 60 to 65) to DELIVERED, if one of their attempts was given up as lost
-- and later turned out to have been accepted, and no receipt reports more. Applies to the statuses in $5; a retry that
-- waits is thereby called off before it sends a second copy. Deliveries with reason 'no_receipt' are left alone: their
-- acceptance was known. A delivery that was settled before keeps its settled_at, and so its day in the statistics.
-- $1 shard[], $2 message_id[], $3 no[], $4 now; $5 statuses that may change to SENT[], and for each the change of the
-- statistics: $6 total[], $7 success[], $8 failed[].
with head as (
  update deliveries d
  set status = (case when d.lane between 60 and 65 then 'DELIVERED' else 'SENT' end)::delivery_status,
    event_seq = d.event_seq + 1, provider = a.provider, reason = 'late_answer',
    settled_at = coalesce(d.settled_at, $4)
  from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as s(shard, message_id, no)
  cross join lateral (
    select a.attempt, a.provider from attempts a
    where a.shard = s.shard and a.message_id = s.message_id and a.no = s.no and a.outcome = 'ACCEPTED' and a.late
      and (a.receipt is null or a.receipt = 'ACCEPTED')
    order by a.attempt
    limit 1
  ) a
  cross join unnest($5::text[]::delivery_status[], $6::smallint[], $7::smallint[], $8::smallint[])
    as l(was, total, success, failed)
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
    and d.status = l.was and d.reason is distinct from 'no_receipt'
  returning d.shard, d.message_id, d.no, d.event_seq, a.attempt, a.provider as attempted_by, d.partner_id, d.lane,
    d.settled_at, l.total, l.success, l.failed
),
new_events as (
  insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
  select shard, message_id, no, event_seq, attempt,
    case when lane between 60 and 65 then 'delivery.delivered' else 'delivery.sent' end, 'late_answer', $4
  from head
),
stat_changes as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  select partner_id, settled_at, lane, sum(total), sum(success), sum(failed)
  from head
  group by partner_id, settled_at, lane
)
select shard, message_id, no, event_seq, attempt, attempted_by as provider, partner_id, lane from head
