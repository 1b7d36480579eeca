-- At most one attempt is IN_FLIGHT: the newest of a PROCESSING delivery.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select a.message_id as "message_id!", a.no as "no!",
  format('attempt %s of %s, %s', a.attempt, d.attempt, d.status) as "found!"
from attempts a
join deliveries d using (shard, message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and a.outcome = 'IN_FLIGHT' and (d.status <> 'PROCESSING' or a.attempt <> d.attempt)
