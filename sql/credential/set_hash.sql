-- Replaces the hash of a user's password, if it still is the one that was read.
-- $1 shard, $2 user_id, $3 the hash that was read, $4 the new hash, $5 now.
update credentials set password_hash = $4, changed_at = $5 where shard = $1 and user_id = $2 and password_hash = $3
