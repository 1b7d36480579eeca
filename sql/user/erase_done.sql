-- Forgets the names of a deleted user whose messages are erased.
-- $1 shard, $2 user_id.
update users set erase_names = null where shard = $1 and user_id = $2
