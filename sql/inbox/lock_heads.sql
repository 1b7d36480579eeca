-- Locks the heads of users' streams, in order.
-- $1 shard[], $2 user_id[].
select h.seq
from unnest($1::smallint[], $2::bigint[]) as p(shard, user_id)
join user_heads h on h.shard = p.shard and h.user_id = p.user_id
order by h.shard, h.user_id
for no key update of h
