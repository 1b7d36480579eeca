-- How many of the next deliveries to an endpoint wait for another try, and the last one looked at, in the order of their ids.
-- $1 shard, $2 recipient, only behind message $3, delivery number $4, and messages below $5; $6 rows to look at, $7 now,
-- $8 where parked deliveries wait.
with seen as materialized (
  select message_id, no, status = 'SCHEDULED' and attempt > 0 and ready_at > $7 and ready_at < $8 as waits,
    row_number() over (order by message_id, no) as position
  from deliveries
  where shard = $1 and recipient = $2 and lane between 66 and 71 and message_id >= $3
    and (message_id, no) > ($3, $4::smallint) and message_id < $5
  order by message_id, no
  limit $6
)
select message_id, no, position as "position!", (select count(*) from seen where waits) as "waiting!"
from seen
order by position desc
limit 1
