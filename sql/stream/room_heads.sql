-- The numbers of the last events of rooms' streams.
-- $1 shard[], $2 room_id[].
select h.shard, h.room_id, h.seq
from unnest($1::smallint[], $2::bigint[]) as p(shard, room_id)
join room_heads h on h.shard = p.shard and h.room_id = p.room_id
