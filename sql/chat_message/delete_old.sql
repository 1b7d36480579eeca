-- Deletes a room's oldest messages. Ids grow with the numbers, so the oldest come first.
-- $1 shard, $2 room_id, $3 chat_id below this, $4 rows at most.
delete from chat_messages
where shard = $1 and room_id = $2 and seq in (
  select seq
  from (select seq, chat_id from chat_messages where shard = $1 and room_id = $2 order by seq limit $4) oldest
  where chat_id < $3)
