-- Locks devices in the order of their ids and returns their sealed tokens, to be sealed again under another master key.
-- $1 shard, $2 device_id after this, $3 rows at most.
select device_id, token, token_hash from devices where shard = $1 and device_id > $2 order by device_id limit $3
for update
