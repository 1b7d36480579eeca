-- An applied receipt is recorded on its attempt, and a delivery with a DELIVERED receipt is DELIVERED.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select r.message_id as "message_id!", r.no as "no!",
  format('receipt %s of attempt %s says %s, the attempt %s', r.event_key, r.attempt, r.outcome,
    coalesce(a.receipt::text, 'none')) as "found!"
from receipts r
join attempt_history a using (shard, message_id, no, attempt)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and r.shard = $1 and r.message_id >= $2 and r.message_id < $3
  and r.effect in ('applied', 'recorded', 'known') and (a.receipt is null or a.receipt < r.outcome)
union all
select a.message_id, a.no, format('attempt %s arrived, but %s', a.attempt, d.status)
from attempts a
join deliveries d using (shard, message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and a.receipt = 'DELIVERED' and d.status <> 'DELIVERED'
