-- A partner's open public rooms, newest first, each with the row of one user in it.
-- $1 shard, $2 partner_id, $3 user_id, $4 room_id below this, $5 rows at most.
select r.shard, r.room_id, r.partner_id, r.kind::text as "kind!", r.visibility::text as "visibility!", r.title,
  r.settings, r.metadata, r.retention_days, r.encrypted, r.created_by, r.created_at, r.updated_at, r.closed_at,
  h.seq as "seq!", h.no as "no!", h.last_seq as "last_seq!", h.last_id as "last_id!",
  h.members as "members!", h.most_members as "most_members!",
  m.user_id as "member_id?", m.role::text as "role?", m.joined_at as "joined_at?", m.from_no as "from_no?",
  m.read_no as "read_no?", m.delivered_no as "delivered_no?", m.read_at as "read_at?", m.left_at as "left_at?",
  m.left_seq as "left_seq?", m.banned_at as "banned_at?", m.notify as "notify?", m.muted_until as "muted_until?",
  m.silenced_until as "silenced_until?"
from rooms r
join room_heads h on h.shard = r.shard and h.room_id = r.room_id
left join current_members m on m.shard = r.shard and m.room_id = r.room_id and m.user_id = $3
where r.partner_id = $2 and r.shard = $1 and r.visibility = 'PUBLIC' and r.closed_at is null and r.room_id < $4
order by r.room_id desc
limit $5
