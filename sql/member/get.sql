-- Rows of users in a room, also of those who left.
-- $1 shard, $2 room_id, $3 user_id[].
select
  m.user_id as "member_id!", m.role::text as "role!", m.joined_at as "joined_at!", m.from_no as "from_no!",
  m.read_no as "read_no!", m.delivered_no as "delivered_no!", m.read_at as "read_at?", m.left_at as "left_at?",
  m.left_seq as "left_seq?", m.banned_at as "banned_at?", m.notify as "notify!", m.muted_until as "muted_until?",
  m.silenced_until as "silenced_until?"
from current_members m
where m.shard = $1 and m.room_id = $2 and m.user_id = any($3::bigint[])
