-- Makes groups with their members and heads. Their numbers begin at the first message: no event tells of their making.
-- $1 shard, $2 first room_id, $3 number of rooms (their ids are consecutive), $4 partner_id, $5 user_id[] of members of
-- every room, the first of whom has made them, $6 user_id[] of members of one room each: the n-th of room n, and from
-- the first room again after the last, $7 now, $8 most members.
with r as (
  select $2 + n as room_id, n from generate_series(0, $3::bigint - 1) as n
),
made as (
  insert into rooms (shard, room_id, partner_id, kind, visibility, encrypted, created_by, created_at, updated_at)
  select $1, room_id, $4, 'GROUP', 'PRIVATE', false, ($5::bigint[])[1], $7, $7 from r
),
joined as (
  insert into members (shard, room_id, user_id, role, joined_at)
  select $1, r.room_id, u.user_id, 'MEMBER'::member_role, $7 from r cross join unnest($5::bigint[]) as u(user_id)
  union all
  select $1, $2 + (u.nth - 1) % $3::bigint, u.user_id, 'MEMBER'::member_role, $7
  from unnest($6::bigint[]) with ordinality as u(user_id, nth)
)
insert into room_gates (shard, room_id, last_id, members, most_members, is_individual)
select $1, room_id, room_id, cardinality($5::bigint[]) + (cardinality($6::bigint[]) - n + $3::bigint - 1) / $3::bigint,
  $8, false
from r
