-- Snoozed items whose time has come.
-- $1 shard[], $2 now, $3 items at most in a shard.
select d.shard as "shard!", d.user_id as "user_id!", d.message_id as "message_id!", d.no as "no!"
from unnest($1::smallint[]) as s(shard)
cross join lateral (
  select i.shard, i.user_id, i.message_id, i.no
  from inbox_items i
  where i.shard = s.shard and i.snoozed_until <= $2::timestamptz and i.snoozed_until is not null
  order by i.snoozed_until
  limit $3
) d
order by 1, 2
