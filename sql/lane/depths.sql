-- Number of PENDING deliveries and the oldest ready_at of each lane. Counting stops at $2 per shard and lane, so that
-- it stays cheap with a backlog.
-- $1 shard[], $2 rows to count at most, $3 lane[].
select l.lane as "lane!", sum(d.n)::bigint as "depth!", min(d.oldest) as oldest
from unnest($3::smallint[]) as l(lane)
cross join unnest($1::smallint[]) as s(shard)
cross join lateral (
  select count(*) as n, min(ready_at) as oldest
  from (
    select ready_at from deliveries
    where shard = s.shard and lane = l.lane and status = 'PENDING'
    order by ready_at limit $2
  ) x
) d
group by l.lane
having sum(d.n) > 0
