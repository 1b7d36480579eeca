-- What waits in these lanes though another channel stands by, and was surely not sent, nor taken back. What others hold is passed over.
-- $1 shard[], $2 lane[], $3 rows at most.
select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.cancel_requested, d.expires_at,
  d.has_fallback
from unnest($1::smallint[]) as s(shard)
cross join unnest($2::smallint[]) as l(lane)
cross join lateral (
  select d.* from deliveries d
  where d.shard = s.shard and d.lane = l.lane and d.status = 'PENDING' and d.has_fallback and not d.possibly_sent
    and not d.cancel_requested
  order by d.ready_at
  limit $3
  for update skip locked
) d
limit $3
