-- Puts users into a room; one that was there before comes back as a MEMBER, unless it is banned. Returns those who
-- came.
-- $1 shard, $2 room_id, $3 user_id[], $4 role[] of each, $5 from_no, $6 now.
insert into members (shard, room_id, user_id, role, joined_at, from_no, read_no, delivered_no)
select $1, $2, u.user_id, (u.role)::member_role, $6, $5, $5, $5
from unnest($3::bigint[], $4::text[]) as u(user_id, role)
order by u.user_id
on conflict on constraint pk_members do update
set role = excluded.role, joined_at = excluded.joined_at, from_no = excluded.from_no,
  read_no = greatest(members.read_no, excluded.read_no),
  delivered_no = greatest(members.delivered_no, excluded.delivered_no), left_at = null, left_seq = null,
  silenced_until = null
where members.left_at is not null and members.banned_at is null
returning user_id
