-- How far the members of a room have read.
-- $1 shard, $2 room_id.
select user_id, read_no, delivered_no from members where shard = $1 and room_id = $2 and left_at is null
