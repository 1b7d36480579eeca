-- Records when users last did something, in their connections, of any process.
-- One each per user: $1 shard[], $2 user_id[], $3 active_at[].
update connections c
set active_at = u.active_at
from unnest($1::smallint[], $2::bigint[], $3::timestamptz[]) as u(shard, user_id, active_at)
where c.shard = u.shard and c.user_id = u.user_id
