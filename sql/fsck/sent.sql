-- SENT only with an attempt that was accepted, by its answer or a receipt, and did not fail on its way; DELIVERED only with a
-- receipt. An accepted attempt only with them, but for one that answered late while the next is under way, one of which no
-- receipt came in time, and what was redriven since.
select d.message_id as "message_id!", d.no as "no!", format('%s without an accepted attempt', d.status) as "found!"
from deliveries d
where d.status in ('SENT', 'DELIVERED') and not exists (
  select from attempts a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no
    and case when d.status = 'DELIVERED' then a.receipt = 'DELIVERED'
      else a.receipt = 'ACCEPTED' or a.outcome = 'ACCEPTED' and a.receipt is null end)
union all
select a.message_id, a.no, format('attempt %s accepted, but %s', a.attempt, d.status)
from attempts a
join deliveries d using (shard, message_id, no)
where a.outcome = 'ACCEPTED' and coalesce(a.receipt, 'ACCEPTED') not in ('EXPIRED', 'FAILED')
  and d.status not in ('SENT', 'DELIVERED') and not (a.late and d.status = 'PROCESSING')
  and not (d.status = 'UNDETERMINED' and d.reason = 'no_receipt')
  and not exists (
    select from events e
    where e.shard = d.shard and e.message_id = d.message_id and e.no = d.no and e.event = 'delivery.redriven')
