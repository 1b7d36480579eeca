-- Lets a member write no more until a time (null: it may).
-- $1 shard, $2 room_id, $3 user_id, $4 until.
update members set silenced_until = $4 where shard = $1 and room_id = $2 and user_id = $3 and left_at is null
