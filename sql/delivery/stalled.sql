-- Stalled: of the open webhooks behind ($1, $2) those that wait for one before them in their sequence, though there is none:
-- a worker was lost between the end of one and the release of the next. The look is bounded: sequences are walked in slices,
-- and the last row looked at comes back in any case, to go on from.
-- $1 shard, $2 message told of, $3 rows to look at, $4 where those behind another wait.
with seen as materialized (
  select d.shard, d.about, d.recipient, d.told_at, d.message_id, d.no, d.ready_at
  from deliveries d
  where (d.shard, d.about) > ($1::smallint, $2::bigint) and d.lane between 66 and 71
    and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
  order by d.shard, d.about
  -- With ties: a sequence is looked at as a whole.
  fetch first $3 rows with ties
),
placed as (
  select s.*, row_number() over (order by shard, about, recipient collate "C", told_at, message_id) as position,
    row_number() over (partition by shard, about, recipient order by told_at, message_id) as nth
  from seen s
)
select shard, message_id, no, about as "about!", nth = 1 and ready_at = $4 as "stalled!"
from placed
where (nth = 1 and ready_at = $4) or position = (select max(position) from placed)
order by position
