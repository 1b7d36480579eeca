-- Release next: after these webhooks ended, or were put off behind another, those that wait at the head of their sequences
-- become PENDING: as many as are asked for, up to the first that waits for something else. Rows that another holds are
-- passed over: it releases them, or ends them and releases what follows.
-- $1 shard[], $2 message_id[], $3 no[], $4 how many of its sequence at most[], $5 where those behind another wait, $6 now,
-- $7 and $8 the smallest and largest message id (prunes the partitions), $9 the status of those that wait,
-- $10 by how much a webhook's id may be below that of the message it tells of.
with sequence as materialized (
  select d.shard, d.about, d.recipient, max(k.take) as take
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::bigint[]) as k(shard, message_id, no, take)
  join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no and d.message_id between $7 and $8
  where d.about is not null
  group by d.shard, d.about, d.recipient
),
head as materialized (
  select o.shard, o.message_id, o.no
  from sequence s
  cross join lateral (
    select o.shard, o.message_id, o.no, bool_and(o.waits) over (order by o.told_at, o.message_id) as leads
    from (
      select o.shard, o.message_id, o.no, o.told_at, o.ready_at = $5 as waits
      from deliveries o
      where o.shard = s.shard and o.about = s.about and o.recipient collate "C" = s.recipient
        and o.lane between 66 and 71 and o.status in ('SCHEDULED', 'PENDING', 'PROCESSING') and o.message_id >= s.about - $10
      order by o.told_at, o.message_id
      limit s.take
    ) o
  ) o
  where o.leads
),
-- By key and sorted, so that two releases never wait for each other in a ring.
held as materialized (
  select d.shard, d.message_id, d.no
  from (select * from head order by shard, message_id, no) h
  cross join lateral (
    select d.shard, d.message_id, d.no
    from deliveries d
    where d.shard = h.shard and d.message_id = h.message_id and d.no = h.no
      and d.ready_at = $5 and d.status = ($9::text)::delivery_status
    limit 1
    for update skip locked
  ) d
)
update deliveries d
set status = 'PENDING', ready_at = $6
from held h
where d.shard = h.shard and d.message_id = h.message_id and d.no = h.no
returning d.shard, d.lane
