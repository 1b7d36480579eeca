-- The newest of the last 2,000 events that is a message of this sender.
-- $1 shard, $2 room_id, $3 sender_id, $4 the room's seq.
select max(chat_id) from chat_messages where shard = $1 and room_id = $2 and seq > $4::bigint - 2000 and sender_id = $3
