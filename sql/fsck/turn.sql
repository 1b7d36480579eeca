-- No delivery waits while its lane is served: none is PENDING that was ready five minutes before a claimed one of its
-- lane. Returns the oldest of each lane.
-- The latest ready_at of a claimed delivery, as gathered from all slices: $1 shard[], $2 lane[], $3 ready_at[].
select w.message_id as "message_id!", w.no as "no!",
  format('PENDING since %s; one of its lane that was ready at %s was claimed', w.ready_at, c.ready_at) as "found!"
from (
  select distinct on (shard, lane) shard, lane, message_id, no, ready_at
  from deliveries
  where status = 'PENDING'
  order by shard, lane, ready_at
) w
join unnest($1::smallint[], $2::smallint[], $3::timestamptz[]) as c(shard, lane, ready_at) using (shard, lane)
where c.ready_at > w.ready_at + interval '5 minutes'
