-- Counts the deliveries that wait for a retry among an endpoint's next $6 deliveries in the order of their ids, and
-- returns the last delivery read, to continue after it.
-- $1 shard, $2 recipient (the endpoint), $3 and $4: only deliveries after message_id $3, no $4; $5 message_id below
-- this, $6 rows to read, $7 now, $8 the ready_at of parked deliveries.
with read as materialized (
  select message_id, no, status = 'SCHEDULED' and attempt > 0 and ready_at > $7 and ready_at < $8 as waits,
    row_number() over (order by message_id, no) as position
  from deliveries
  where shard = $1 and recipient = $2 and lane between 66 and 71 and message_id >= $3
    and (message_id, no) > ($3, $4::smallint) and message_id < $5
  order by message_id, no
  limit $6
)
select message_id, no, position as "position!", (select count(*) from read where waits) as "retrying!"
from read
order by position desc
limit 1
