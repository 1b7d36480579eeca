-- The rooms that a user is in, with how far it has read, the latest first.
-- $1 shard, $2 user_id, $3 rooms at most.
select m.room_id as "room_id!", greatest(0, h.no - greatest(m.read_no, m.from_no)) as "unread!", h.seq as "seq!",
  h.no as "no!", h.last_seq as "last_seq!", m.from_no as "from_no!"
from current_members m
join room_heads h on h.shard = m.shard and h.room_id = m.room_id
where m.user_id = $2 and m.shard = $1 and m.left_at is null and m.hidden_no < h.no
order by h.last_id desc
limit $3
