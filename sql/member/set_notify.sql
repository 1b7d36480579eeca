-- What a member wants to be notified of.
-- $1 shard, $2 room_id, $3 user_id, $4 notify, $5 muted_until.
update members set notify = $4, muted_until = $5
where shard = $1 and room_id = $2 and user_id = $3 and left_at is null
