-- Deletes the oldest devices of a user beyond a number.
-- $1 shard, $2 user_id, $3 devices that stay.
delete from devices where shard = $1 and device_id in (
  select device_id from devices where shard = $1 and user_id = $2 order by device_id desc offset $3)
