-- The hub itself puts nothing off for more than five minutes: what it could not begin in time is called soon after.
-- Where a provider, an endpoint or a limit is what a delivery waits for, the attempt has another code. Message ids from
-- $1 up to, not including, $2.
select d.message_id as "message_id!", d.no as "no!",
  format('%s, put off %s times from %s to %s without a call', d.status, a.n, a.first, a.last) as "found!"
from deliveries d
join (
  select shard, message_id, no, count(*) filter (where code = 'postponed') as n,
    min(claimed_at) filter (where code = 'postponed') as first,
    max(claimed_at) filter (where code = 'postponed') as last, max(called_at) as called
  from attempts
  where message_id >= $1 and message_id < $2
  group by shard, message_id, no
  having count(*) filter (where code = 'postponed') > 2
) a using (shard, message_id, no)
where d.message_id >= $1 and d.message_id < $2 and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
  and a.last > a.first + interval '5 minutes' and coalesce(a.called < a.first, true)
