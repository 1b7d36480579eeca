-- The time since when each delivery is being tried: its first call, or its last redrive if that is later.
-- $1 shard[], $2 message_id[], $3 no[].
select k.shard as "shard!", k.message_id as "message_id!", k.no as "no!", greatest(
    (select min(a.called_at) from attempts a
      where a.shard = k.shard and a.message_id = k.message_id and a.no = k.no),
    (select max(e.occurred_at) from events e
      where e.shard = k.shard and e.message_id = k.message_id and e.no = k.no and e.event = 'delivery.redriven')
  ) as since
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
