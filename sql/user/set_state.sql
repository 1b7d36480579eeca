-- Sets the state of a user.
-- $1 shard, $2 user_id, $3 state, $4 now.
update users set state = ($3::text)::user_state, updated_at = $4 where shard = $1 and user_id = $2
