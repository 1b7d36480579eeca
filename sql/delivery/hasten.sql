-- Hasten: what waits for its next try at an endpoint goes now, because somebody asks; its attempts and its schedule stay as
-- they are. Of the endpoint's next rows, in the order of their ids: the look is bounded, not the find, and the last row looked
-- at comes back in any case, to go on from. What another holds is changing anyway, and is passed over.
-- $1 shard, $2 recipient, only behind message $3, delivery number $4, and messages below $5; $6 rows to look at, $7 rows to
-- hasten at most, one at least, $8 now, $9 where parked deliveries wait.
with seen as materialized (
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
  from seen s
  window by_id as (order by message_id, no)
),
-- Each by its key, whatever is believed of a partition. The status is not written out: a literal lets the planner walk the
-- index of all that is SCHEDULED.
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
hastened as (
  update deliveries d
  set status = 'PENDING', ready_at = $8
  from held h
  where d.shard = h.shard and d.message_id = h.message_id and d.no = h.no
  returning d.message_id, d.no, d.lane
),
looked as (
  select max(position) as last, max(position) = $6 or max(position) < (select count(*) from numbered) as more
  from numbered
  where waiting <= $7
)
select n.message_id, n.no, h.lane as "lane?", l.more as "more!"
from numbered n
cross join looked l
left join hastened h on h.message_id = n.message_id and h.no = n.no
where h.lane is not null or n.position = l.last
order by n.position
