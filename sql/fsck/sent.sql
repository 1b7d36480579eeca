-- SENT and DELIVERED only with an accepted attempt; an accepted attempt only with them, but for one that answered late
-- while the next is under way.
select d.message_id as "message_id!", d.no as "no!", format('%s without an accepted attempt', d.status) as "found!"
from deliveries d
where d.status in ('SENT', 'DELIVERED') and not exists (
  select from attempts a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.outcome = 'ACCEPTED')
union all
select a.message_id, a.no, format('attempt %s accepted, but %s', a.attempt, d.status)
from attempts a
join deliveries d using (shard, message_id, no)
where a.outcome = 'ACCEPTED' and d.status not in ('SENT', 'DELIVERED') and not (a.late and d.status = 'PROCESSING')
