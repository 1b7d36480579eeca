-- Deletes a device of a user.
-- $1 shard, $2 user_id, $3 device_id.
delete from devices where shard = $1 and user_id = $2 and device_id = $3
