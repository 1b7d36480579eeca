-- Deletes all devices of a user.
-- $1 shard, $2 user_id.
delete from devices where shard = $1 and user_id = $2
