-- Whether a user has blocked another.
-- $1 shard, $2 user_id, $3 blocked_id.
select exists (select from user_blocks where shard = $1 and user_id = $2 and blocked_id = $3) as "exists!"
