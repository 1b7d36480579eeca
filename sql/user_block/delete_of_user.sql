-- Deletes every block by a user and of it.
-- $1 shard, $2 user_id.
delete from user_blocks where shard = $1 and (user_id = $2 or blocked_id = $2)
