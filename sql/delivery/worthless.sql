-- Sweep, first half: of the next rows that wait, beginning behind ($1, $2, $3), those that expired meanwhile. Where a
-- lane is claimed from, claims find them first; this is for lanes nobody serves. The look is bounded, not the find: a
-- large backlog is swept in slices, and the last row looked at comes back in any case, to go on from.
-- $1 shard, $2 lane, $3 ready_at, $4 now, $5 rows to look at.
with seen as materialized (
  select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.has_fallback, d.ready_at, d.expires_at,
    row_number() over (order by d.shard, d.lane, d.ready_at) as position
  from deliveries d
  where d.status = 'PENDING' and (d.shard, d.lane, d.ready_at) > ($1::smallint, $2::smallint, $3::timestamptz)
  order by d.shard, d.lane, d.ready_at
  -- With ties: to go on behind the last row must pass over none that is ready at the same moment.
  fetch first $5 rows with ties
)
select shard, message_id, no, lane, attempt, max_attempts, possibly_sent, has_fallback, ready_at, expires_at, position as "position!"
from seen
where expires_at <= $4 or position = (select max(position) from seen)
order by position
