-- Users with a connection of a process that lives, each with the time at which it last opened one or did something.
-- One each per user: $1 shard[], $2 user_id[]. For all: $3 seen_at from this on.
select c.user_id, max(greatest(c.opened_at, c.active_at)) as "active_at!"
from unnest($1::smallint[], $2::bigint[]) as u(shard, user_id)
join connections c on c.shard = u.shard and c.user_id = u.user_id
join live_processes p on p.process_id = c.process_id and p.seen_at >= $3
group by c.user_id
