-- The hash of a user's password, and its failed sign-ins.
-- $1 shard, $2 user_id.
select password_hash, failures, wait_until from credentials where shard = $1 and user_id = $2
