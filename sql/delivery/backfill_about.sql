-- Fills `about` and `told_at` of open webhooks that an older version wrote without them, in bounded batches.
-- $1 shard[], $2 rows at most.
with old as materialized (
  select d.shard, d.message_id, d.no
  from unnest($1::smallint[]) as s(shard)
  cross join lateral (
    select d.shard, d.message_id, d.no
    from deliveries d
    where d.shard = s.shard and d.about is null and d.lane between 66 and 71
      and d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
    -- For the plan: with this order only the index of open webhooks needs no sort, whatever the statistics are.
    order by d.about, d.recipient collate "C", d.told_at, d.message_id
    limit $2
    for update skip locked
  ) d
  limit $2
)
update deliveries d
set about = coalesce(m.about, d.message_id), told_at = coalesce(m.created_at, d.ready_at)
from old o
left join lateral (
  -- For the plan: with this order only the primary key needs no sort, whatever the statistics are.
  select f.about, f.created_at
  from (
    select m.message_id, m.about, m.created_at
    from messages m
    where m.shard = o.shard and m.message_id >= o.message_id
    order by m.shard, m.message_id
    limit 1
  ) f
  where f.message_id = o.message_id
) m on true
where d.shard = o.shard and d.message_id = o.message_id and d.no = o.no
