-- No delivery waits while its lane is served: none is PENDING that was ready five minutes before a claimed one of its
-- lane. Returns the oldest of each lane.
with waits as (
  select distinct on (shard, lane) shard, lane, message_id, no, ready_at
  from deliveries
  where status = 'PENDING'
  order by shard, lane, ready_at
),
since as materialized (
  select min(ready_at) + interval '5 minutes' as at from waits
),
claimed as (
  select d.shard, d.lane, max(d.ready_at) as ready_at
  from attempt_history a
  join deliveries d using (shard, message_id, no, attempt)
  where a.claimed_at >= d.ready_at and d.ready_at > (select at from since) and a.claimed_at > (select at from since)
  group by d.shard, d.lane
)
select w.message_id as "message_id!", w.no as "no!",
  format('PENDING since %s; one of its lane that was ready at %s was claimed', w.ready_at, c.ready_at) as "found!"
from waits w
join claimed c using (shard, lane)
where c.ready_at > w.ready_at + interval '5 minutes'
