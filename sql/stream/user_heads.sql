-- The numbers of the last events of users' streams. A user without a stream has no row.
-- $1 shard[], $2 user_id[].
select h.shard, h.user_id, h.seq
from unnest($1::smallint[], $2::bigint[]) as p(shard, user_id)
join user_heads h on h.shard = p.shard and h.user_id = p.user_id
