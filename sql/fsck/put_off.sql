-- The hub itself does not postpone a delivery for more than five minutes: a call that could not be begun in time is
-- made soon after. Waiting for a provider, an endpoint or a limit has another code than 'postponed'.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  format('%s, put off %s times from %s to %s without a call', d.status, p.n, p.first, p.last) as "found!"
from (
  select message_id, no, count(*) as n, min(claimed_at) as first, max(claimed_at) as last
  from attempts
  where shard = $1 and message_id >= $2 and message_id < $3 and code = 'postponed'
  group by message_id, no
  having count(*) > 2 and max(claimed_at) > min(claimed_at) + interval '5 minutes'
) p
join deliveries d using (message_id, no)
where d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
  and not exists (
    select from attempts a
    where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
      and a.message_id = p.message_id and a.no = p.no and a.called_at >= p.first)
