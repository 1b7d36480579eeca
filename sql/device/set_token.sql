-- Writes the sealed token of a device.
-- $1 shard, $2 device_id, $3 token.
update devices set token = $3 where shard = $1 and device_id = $2
