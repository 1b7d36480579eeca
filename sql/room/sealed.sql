-- Rooms whose messages are sealed, in the order of their ids.
-- $1 shard, $2 room_id after this, $3 rows at most.
select room_id from rooms where shard = $1 and room_id > $2 and encrypted order by room_id limit $3
