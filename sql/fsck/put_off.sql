-- The hub itself does not postpone a delivery for more than five minutes: a call that could not be begun in time is
-- made soon after. Waiting for a provider, an endpoint or a limit has another code than 'postponed'.
-- $1 message_id from this on, $2 message_id below this.
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
