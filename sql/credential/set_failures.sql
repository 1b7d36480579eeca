-- Writes the count of a user's failed sign-ins in a row, and the time until which every sign-in is refused.
-- $1 shard, $2 user_id, $3 failures, $4 wait_until.
update credentials set failures = $3, wait_until = $4 where shard = $1 and user_id = $2
