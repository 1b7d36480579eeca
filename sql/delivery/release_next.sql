-- After these webhooks ended (or were put off behind another), makes the webhooks at the head of their sequences
-- PENDING: up to the given number, and none after the first that waits for something else. Rows locked by others are
-- skipped: the transaction that holds one releases it, or ends it and releases its successors.
-- $1 shard[], $2 message_id[], $3 no[], $4 webhooks of that sequence to release at most[], $5 the ready_at of webhooks
-- that wait behind another, $6 now, $7 and $8 the smallest and largest message_id (partition pruning), $9 the status of
-- waiting webhooks, $10 how far a webhook's message_id may be below that of the message it reports on.
with sequence as materialized (
  select d.shard, d.about, d.recipient, max(k.take) as take
  from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::bigint[]) as k(shard, message_id, no, take)
  join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
    and d.message_id between $7 and $8
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
        and o.lane between 66 and 71 and o.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
        and o.message_id >= s.about - $10
      order by o.told_at, o.message_id
      limit s.take
    ) o
  ) o
  where o.leads
),
-- By key and sorted, so that two releases cannot deadlock.
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
