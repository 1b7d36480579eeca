-- Lets a user that was removed for good come back. Returns whether it was banned.
-- $1 shard, $2 room_id, $3 user_id.
update members set banned_at = null where shard = $1 and room_id = $2 and user_id = $3 and banned_at is not null
