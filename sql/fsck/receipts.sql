-- What was told is in the books: an applied receipt on its attempt, what arrived on its delivery; and what can be applied does
-- not wait for more than five minutes. $1 now.
select r.message_id as "message_id!", r.no as "no!",
  format('receipt %s of attempt %s says %s, the attempt %s', r.event_key, r.attempt, r.outcome, coalesce(a.receipt::text, 'none')) as "found!"
from receipts r
join attempts a using (shard, message_id, no, attempt)
where r.effect in ('applied', 'recorded', 'known') and (a.receipt is null or a.receipt < r.outcome)
union all
select a.message_id, a.no, format('attempt %s arrived, but %s', a.attempt, d.status)
from attempts a
join deliveries d using (shard, message_id, no)
where a.receipt = 'DELIVERED' and d.status <> 'DELIVERED'
union all
select coalesce(r.message_id, 0), coalesce(r.no, 0::smallint), format('receipt %s of %s waits since %s', r.event_key, r.provider, r.received_at)
from receipts r
where r.applied_at is null and r.effect is distinct from 'unmatched' and r.try_at < $1::timestamptz - interval '5 minutes'
