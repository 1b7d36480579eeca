-- The message that a sender wrote with this tempId.
-- $1 shard, $2 room_id, $3 sender_id, $4 temp_id.
select c.shard, c.room_id, c.seq, c.no, c.chat_id, c.sender_id, c.temp_id, c.kind, c.content, c.version, c.edited_at,
  c.deleted_at
from chat_messages c
where c.room_id = $2 and c.sender_id = $3 and c.temp_id = $4 and c.shard = $1
