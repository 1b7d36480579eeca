-- The numbers of the last events of rooms' streams.
-- $1 shard[], $2 room_id[].
select p.shard as "shard!", p.room_id as "room_id!", h.seq as "seq!"
from unnest($1::smallint[], $2::bigint[]) as p(shard, room_id)
join room_heads h on h.shard = p.shard and h.room_id = p.room_id
