-- First open webhooks of sequences, in the order in which they were written. A sequence is the events of one message to
-- one endpoint. A webhook without `about` (written by an older version) may belong to any message: the first of them to
-- the endpoint is returned with, and before, each of its sequences.
-- $1 shard[], $2 about (the message reported on)[], $3 recipient (the endpoint)[], $4 webhooks at most[], $5 how far
-- the processes' clocks, and so ids, may differ, $6 the largest message_id ($5 and $6 prune partitions).
select k.about as "about!", k.recipient as "recipient!", d.message_id as "message_id!"
from unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[]) as k(shard, about, recipient, take)
cross join lateral (
  (
    select d.message_id, d.told_at
    from deliveries d
    where d.shard = k.shard and d.about = k.about and d.recipient collate "C" = k.recipient
      and d.lane between 66 and 71 and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
      and d.message_id >= k.about - $5 and d.message_id <= $6 + $5
    order by d.told_at, d.message_id
    limit k.take
  )
  union all
  (
    select d.message_id, d.told_at
    from deliveries d
    where d.shard = k.shard and d.about is null and d.recipient collate "C" = k.recipient
      and d.lane between 66 and 71 and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING') and d.message_id <= $6
    -- All columns of the index, so that no sort is needed: while an older version runs there may be many rows.
    order by d.about, d.recipient collate "C", d.told_at, d.message_id
    limit 1
  )
) d
order by k.about, k.recipient, d.told_at nulls first, d.message_id
