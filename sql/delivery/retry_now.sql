-- Makes deliveries that wait for a retry at an endpoint PENDING now; their attempts and retry schedule stay as they
-- are. Reads the endpoint's next $6 deliveries in the order of their ids and always returns the last one read, to
-- continue after it. Rows locked by others are skipped: they are changing anyway.
-- $1 shard, $2 recipient (the endpoint), $3 and $4: only deliveries after message_id $3, no $4; $5 message_id below
-- this, $6 rows to read, $7 rows to change at most (at least 1), $8 now, $9 the ready_at of parked deliveries.
with read as materialized (
  select message_id, no, status, attempt, ready_at,
    status = 'SCHEDULED' and attempt > 0 and ready_at > $8 and ready_at < $9 as waits
  from deliveries
  where shard = $1 and recipient = $2 and lane between 66 and 71 and message_id >= $3
    and (message_id, no) > ($3, $4::smallint) and message_id < $5
  order by message_id, no
  limit $6
),
numbered as materialized (
  select s.*, row_number() over by_id as position, count(*) filter (where waits) over by_id as waiting
  from read s
  window by_id as (order by message_id, no)
),
-- `limit 1` makes the planner look up each row by its key, whatever the statistics are. The status is not a literal: a
-- literal lets the planner read the index of all SCHEDULED deliveries.
held as materialized (
  select d.shard, d.message_id, d.no
  from numbered n
  cross join lateral (
    select d.shard, d.message_id, d.no
    from deliveries d
    where d.shard = $1 and d.message_id = n.message_id and d.no = n.no and d.status = n.status
      and d.attempt = n.attempt and d.ready_at = n.ready_at
    limit 1
    for update skip locked
  ) d
  where n.waits and n.waiting <= $7
),
released as (
  update deliveries d
  set status = 'PENDING', ready_at = $8
  from held h
  where d.shard = h.shard and d.message_id = h.message_id and d.no = h.no
  returning d.message_id, d.no, d.lane
),
progress as (
  select max(position) as last, max(position) = $6 or max(position) < (select count(*) from numbered) as more
  from numbered
  where waiting <= $7
)
select n.message_id, n.no, h.lane as "lane?", l.more as "more!"
from numbered n
cross join progress l
left join released h on h.message_id = n.message_id and h.no = n.no
where h.lane is not null or n.position = l.last
order by n.position
