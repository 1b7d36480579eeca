-- The newest message of a sender in a room.
-- $1 shard, $2 room_id, $3 sender_id.
select chat_id from chat_messages where shard = $1 and room_id = $2 and sender_id = $3 order by no desc limit 1
