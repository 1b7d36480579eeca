-- Sequences: the events of a message to an endpoint that wants them in order. Of each, the first webhooks that have not ended,
-- as many as are asked for, in the order in which they were written. One that has no `about` yet may be of any message: the
-- first of them to the endpoint is among them, and the first of all.
-- $1 shard[], $2 message told of[], $3 recipient[], $4 how many[], $5 by how much clocks, and so ids, may be apart, $6 the
-- largest message id (both prune the partitions).
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
    -- All columns of the index, or they are sorted: while an older program runs there may be many.
    order by d.about, d.recipient collate "C", d.told_at, d.message_id
    limit 1
  )
) d
order by k.about, k.recipient, d.told_at nulls first, d.message_id
