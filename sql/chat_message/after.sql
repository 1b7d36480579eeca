-- Messages of a room above a number, oldest first.
-- $1 shard, $2 room_id, $3 seq above this, $4 no above this, $5 rows at most.
select c.shard, c.room_id, c.seq, c.no, c.chat_id, c.sender_id, c.temp_id, c.kind, c.content, c.version, c.edited_at,
  c.deleted_at
from chat_messages c
where c.shard = $1 and c.room_id = $2 and c.seq > $3 and c.no > $4
order by c.seq
limit $5
