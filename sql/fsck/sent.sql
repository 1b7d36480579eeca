-- SENT requires an attempt accepted by its answer or a receipt, without a later failure; DELIVERED requires a receipt,
-- or over INAPP (lanes 60 to 65), which has no receipts, an accepted attempt. The reverse holds too, except for a late
-- acceptance while the next attempt runs, an accepted attempt without a receipt in time, and a redriven delivery.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  case d.status when 'SENT' then 'SENT without an accepted attempt' else 'DELIVERED without its receipt' end as "found!"
from deliveries d
where d.shard = $1 and d.message_id >= $2 and d.message_id < $3 and d.status in ('SENT', 'DELIVERED')
  and not exists (
    select from attempt_history a
    where a.shard = $1 and a.message_id >= $2 and a.message_id < $3 and a.message_id = d.message_id and a.no = d.no
      and case d.status when 'SENT' then a.receipt = 'ACCEPTED' or a.outcome = 'ACCEPTED' and a.receipt is null
        else a.receipt = 'DELIVERED' or d.lane between 60 and 65 and a.outcome = 'ACCEPTED' end)
union all
select a.message_id, a.no, format('attempt %s accepted, but %s', a.attempt, d.status)
from attempts a
join deliveries d using (shard, message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and a.outcome = 'ACCEPTED' and coalesce(a.receipt, 'ACCEPTED') not in ('EXPIRED', 'FAILED')
  and d.status not in ('SENT', 'DELIVERED') and not (a.late and d.status = 'PROCESSING')
  and not (d.status = 'UNDETERMINED' and d.reason = 'no_receipt')
  and not exists (
    select from events e
    where e.shard = $1 and e.message_id >= $2 and e.message_id < $3
      and e.message_id = d.message_id and e.no = d.no and e.event = 'delivery.redriven')
