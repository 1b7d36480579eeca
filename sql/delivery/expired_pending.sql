-- Finds PENDING deliveries that have expired, among the next $5 in the order of the claim index. Where workers claim,
-- the claim finds expired deliveries first; this is for lanes that no worker serves. Always returns the last row read,
-- to continue after it.
-- $1, $2 and $3: only after shard $1, lane $2, ready_at $3; $4 now, $5 rows to read.
with read as materialized (
  select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.has_fallback,
    d.ready_at, d.expires_at, row_number() over (order by d.shard, d.lane, d.ready_at) as position
  from deliveries d
  where d.status = 'PENDING' and (d.shard, d.lane, d.ready_at) > ($1::smallint, $2::smallint, $3::timestamptz)
  order by d.shard, d.lane, d.ready_at
  -- With ties: the next call continues after this ready_at, so all rows with it have to be read now.
  fetch first $5 rows with ties
)
select shard, message_id, no, lane, attempt, max_attempts, possibly_sent, has_fallback, ready_at, expires_at,
  position as "position!"
from read
where expires_at <= $4 or position = (select max(position) from read)
order by position
