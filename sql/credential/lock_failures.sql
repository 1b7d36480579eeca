-- Locks the count of a user's failed sign-ins in a row.
-- $1 shard, $2 user_id.
select failures from credentials where shard = $1 and user_id = $2 for update
