-- Release: what is parked for an endpoint becomes PENDING, in bounded batches. It becomes ready now, not in the past: behind
-- a lane's watermark nobody would see it soon. The order, of equal times, keeps the planner to the index by time; those by
-- recipient hold all that the endpoint ever got, or every open webhook.
-- $1 shard, $2 recipient, $3 where parked deliveries wait, or those behind another, $4 now, $5 rows at most.
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
