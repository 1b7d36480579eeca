-- The rooms that a user is in, with how far it has read, the latest first.
-- $1 shard, $2 user_id, $3 rooms at most.
-- The sender of the last message has read the room, though its mark is written a little later.
select m.room_id,
  case when h.last_sender_id = m.user_id then 0
    else greatest(0, h.no - greatest(m.read_no, m.from_no)) end as "unread!",
  h.seq as "seq!", h.no as "no!", h.last_seq as "last_seq!", m.from_no
from members m
join current_room_heads h on h.shard = m.shard and h.room_id = m.room_id
where m.user_id = $2 and m.shard = $1 and m.left_at is null and m.hidden_no < h.no
order by h.last_id desc
limit $3
