-- Clears a room of two for one of them, and hides it until something is written.
-- $1 shard, $2 room_id, $3 user_id, $4 the room's last number.
update members set from_no = $4, hidden_no = $4, read_no = greatest(read_no, $4)
where shard = $1 and room_id = $2 and user_id = $3 and left_at is null
