-- At most one attempt is in flight, and only the newest of a delivery that is held.
select a.message_id as "message_id!", a.no as "no!", format('attempt %s of %s, %s', a.attempt, d.attempt, d.status) as "found!"
from attempts a
join deliveries d using (shard, message_id, no)
where a.outcome = 'IN_FLIGHT' and (d.status <> 'PROCESSING' or a.attempt <> d.attempt)
