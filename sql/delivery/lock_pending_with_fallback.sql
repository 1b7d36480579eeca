-- Locks PENDING deliveries of these lanes that have an unused fallback, were certainly not sent, and are not canceled.
-- Each lane is read in order, after the row where the last call ended, so that rows that cannot be replaced do not hide
-- others. Rows locked by others are skipped.
-- $1 shard[], $2 lane[]; the last row read in that lane: $3 ready_at[], $4 message_id[], $5 no[]; $6 rows at most per
-- lane.
select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.cancel_requested,
  d.expires_at, d.has_fallback, d.ready_at
from unnest($1::smallint[], $2::smallint[], $3::timestamptz[], $4::bigint[], $5::smallint[])
  as p(shard, lane, ready_at, message_id, no)
cross join lateral (
  select d.* from deliveries d
  where d.shard = p.shard and d.lane = p.lane and d.status = 'PENDING' and d.ready_at >= p.ready_at
    and (d.ready_at, d.message_id, d.no) > (p.ready_at, p.message_id, p.no)
    and d.has_fallback and not d.possibly_sent and not d.cancel_requested
  order by d.ready_at, d.message_id, d.no
  limit $6
  for update skip locked
) d
