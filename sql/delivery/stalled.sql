-- Finds open webhooks that wait behind another one of their sequence although none is open before them: a worker was
-- lost between the end of one and the release of the next. Reads a bounded number of open webhooks and always returns
-- the last one read, to continue after it.
-- $1 and $2: only after shard $1, about $2; $3 rows to read, $4 the ready_at of webhooks that wait behind another.
with read as materialized (
  select d.shard, d.about, d.recipient, d.told_at, d.message_id, d.no, d.ready_at
  from deliveries d
  where (d.shard, d.about) > ($1::smallint, $2::bigint) and d.lane between 66 and 71
    and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
  order by d.shard, d.about
  -- With ties: a sequence is read as a whole.
  fetch first $3 rows with ties
),
placed as (
  select s.*, row_number() over (order by shard, about, recipient collate "C", told_at, message_id) as position,
    row_number() over (partition by shard, about, recipient order by told_at, message_id) as nth
  from read s
)
select shard, message_id, no, about as "about!", nth = 1 and ready_at = $4 as "stalled!"
from placed
where (nth = 1 and ready_at = $4) or position = (select max(position) from placed)
order by position
