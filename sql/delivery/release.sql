-- Makes deliveries that are parked for an endpoint PENDING, in bounded batches. Their ready_at becomes now: with an
-- older one they would lie below the lane's watermark, where claims do not look. The order by ready_at, equal for all,
-- keeps the planner to the index by time: the indexes by recipient hold everything the endpoint ever got.
-- $1 shard, $2 recipient (the endpoint), $3 the ready_at of parked deliveries or of those that wait behind another, $4
-- now, $5 rows at most.
with parked as materialized (
  select shard, message_id, no
  from deliveries
  where shard = $1 and recipient collate "C" = $2 and lane between 66 and 71 and status = 'SCHEDULED'
    and ready_at between $3 and $3
  order by ready_at
  limit $5
  for update skip locked
)
update deliveries d
set status = 'PENDING', ready_at = $4
from parked p
where d.shard = p.shard and d.message_id = p.message_id and d.no = p.no
returning d.shard, d.lane
