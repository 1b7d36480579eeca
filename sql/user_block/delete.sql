-- Unblocks a user.
-- $1 shard, $2 user_id, $3 blocked_id.
delete from user_blocks where shard = $1 and user_id = $2 and blocked_id = $3
