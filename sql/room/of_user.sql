-- The rooms that a user is in, last active first. One of two that the user has left is hidden until something is
-- written.
-- $1 shard, $2 user_id, $3 last_id below this, $4 kind (null: both), $5 rows at most.
select r.shard, r.room_id, r.partner_id, r.kind::text as "kind!", r.visibility::text as "visibility!", r.title,
  r.settings, r.metadata, r.retention_days, r.encrypted, r.created_by, r.created_at, r.updated_at, r.closed_at,
  h.seq as "seq!", h.no as "no!", h.last_seq as "last_seq!", h.last_id as "last_id!",
  h.members as "members!", h.most_members as "most_members!",
  m.user_id as "member_id!", m.role::text as "role!", m.joined_at as "joined_at!", m.from_no as "from_no!",
  m.read_no as "read_no!", m.delivered_no as "delivered_no!", m.read_at as "read_at?", m.left_at as "left_at?",
  m.left_seq as "left_seq?", m.banned_at as "banned_at?", m.notify as "notify!", m.muted_until as "muted_until?",
  m.silenced_until as "silenced_until?"
from current_members m
join rooms r on r.shard = m.shard and r.room_id = m.room_id
join room_heads h on h.shard = m.shard and h.room_id = m.room_id
where m.user_id = $2 and m.shard = $1 and m.left_at is null and m.hidden_no < h.no and h.last_id < $3
  and ($4::text is null or r.kind = ($4::text)::room_kind)
order by h.last_id desc
limit $5
