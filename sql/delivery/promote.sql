-- Makes SCHEDULED deliveries that are due PENDING, oldest first. Their ready_at becomes now: with an older one they
-- would lie below the lane's watermark, where claims do not look.
-- $1 shard[], $2 watermark (smallest ready_at), $3 now, $4 rows at most.
with due as materialized (
  select d.shard, d.message_id, d.no
  from unnest($1::smallint[]) as s(shard)
  cross join lateral (
    select d.shard, d.message_id, d.no
    from deliveries d
    where d.shard = s.shard and d.status = 'SCHEDULED' and d.ready_at >= $2 and d.ready_at <= $3
    order by d.ready_at
    limit $4
    for update skip locked
  ) d
  limit $4
)
update deliveries d
set status = 'PENDING', ready_at = $3
from due
where d.shard = due.shard and d.message_id = due.message_id and d.no = due.no
returning d.shard, d.lane
