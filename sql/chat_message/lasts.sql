-- Messages by their keys.
-- $1 shard[], $2 room_id[], $3 seq[].
select c.shard, c.room_id, c.seq, c.no, c.chat_id, c.sender_id, c.temp_id, c.kind, c.content, c.version, c.edited_at,
  c.deleted_at
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as p(shard, room_id, seq)
join chat_messages c on c.shard = p.shard and c.room_id = p.room_id and c.seq = p.seq
