-- The first members of rooms, by userId, each with its nickname.
-- $1 shard[], $2 room_id[], $3 members at most of a room.
select p.room_id as "room_id!", m.user_id, u.nickname
from unnest($1::smallint[], $2::bigint[]) as p(shard, room_id)
cross join lateral (
  select m.shard, m.user_id
  from members m
  where m.shard = p.shard and m.room_id = p.room_id and m.left_at is null
  order by m.user_id
  limit $3
) m
join users u on u.shard = m.shard and u.user_id = m.user_id
order by p.room_id, m.user_id
