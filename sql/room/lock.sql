-- Locks the head of a room: what happens in a room is numbered one by one.
-- $1 shard, $2 room_id.
select seq, no, last_seq, last_id, last_sender_id, members, most_members
from room_heads
where shard = $1 and room_id = $2
for no key update
