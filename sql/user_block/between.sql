-- Whether a user has blocked one of these, or one of them has blocked it.
-- $1 shard, $2 user_id, $3 others[].
select b.user_id, b.blocked_id
from user_blocks b
where b.shard = $1 and ((b.user_id = $2 and b.blocked_id = any($3::bigint[]))
  or (b.blocked_id = $2 and b.user_id = any($3::bigint[])))
limit 1
