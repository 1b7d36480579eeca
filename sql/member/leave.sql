-- Takes a member out of a room, for good if it is banned.
-- $1 shard, $2 room_id, $3 user_id, $4 now, $5 number of the event, $6 whether it is banned.
update members set left_at = $4, left_seq = $5, banned_at = case when $6 then $4::timestamptz end
where shard = $1 and room_id = $2 and user_id = $3 and left_at is null
