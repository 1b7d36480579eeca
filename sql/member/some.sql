-- Some members of a room, by userId.
-- $1 shard, $2 room_id, $3 user_id[].
select
  m.user_id as "member_id!", m.role::text as "role!", m.joined_at as "joined_at!", m.from_no as "from_no!",
  m.read_no as "read_no!", m.delivered_no as "delivered_no!", m.read_at as "read_at?", m.left_at as "left_at?",
  m.left_seq as "left_seq?", m.banned_at as "banned_at?", m.notify as "notify!", m.muted_until as "muted_until?",
  m.silenced_until as "silenced_until?",
  u.nickname, u.profile_image_url, u.shown_as, u.last_seen_at, u.state::text as "state!"
from current_members m
join users u on u.shard = m.shard and u.user_id = m.user_id
where m.shard = $1 and m.room_id = $2 and m.left_at is null and m.user_id = any($3::bigint[])
order by m.user_id
