-- Locks a message for a change. The caller holds the lock of the room's gate.
-- $1 shard, $2 room_id, $3 seq.
select c.shard, c.room_id, c.seq, c.no, c.chat_id, c.sender_id, c.temp_id, c.kind, c.content, c.version, c.edited_at,
  c.deleted_at
from chat_messages c
where c.shard = $1 and c.room_id = $2 and c.seq = $3
for update
