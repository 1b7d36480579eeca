-- Stores the hash of a user's password.
-- $1 shard, $2 user_id, $3 password_hash, $4 now.
insert into credentials (shard, user_id, password_hash, changed_at) values ($1, $2, $3, $4)
