-- Sets the state of a user and voids all its access tokens. Tokens issued after the last time they were voided may name
-- the second after it as their time of issue, so the new time is later than that.
-- $1 shard, $2 user_id, $3 state, $4 now.
update users set state = ($3::text)::user_state, updated_at = $4,
  tokens_after = greatest($4, date_trunc('second', tokens_after) + interval '1 second 1 microsecond')
where shard = $1 and user_id = $2
