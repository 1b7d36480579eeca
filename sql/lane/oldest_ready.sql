-- The oldest PENDING delivery of each lane, at or after a time: dead index entries before it are not read again.
-- $1 shard[], $2 lane[], $3 ready_at from this on[].
select l.shard as "shard!", l.lane as "lane!", d.ready_at as "ready_at?"
from unnest($1::smallint[], $2::smallint[], $3::timestamptz[]) as l(shard, lane, since)
left join lateral (
  select ready_at from deliveries
  where shard = l.shard and lane = l.lane and status = 'PENDING' and ready_at >= l.since
  order by ready_at
  limit 1
) d on true
