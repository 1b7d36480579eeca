-- Users that one user has blocked, and those that have blocked it.
-- $1 shard, $2 user_id, $3 rows at most, of each.
(select blocked_id as "user_id!" from user_blocks where shard = $1 and user_id = $2 order by blocked_id limit $3)
union
(select user_id from user_blocks where shard = $1 and blocked_id = $2 order by user_id limit $3)
