-- Gives a member a role. No row: it is not in the room.
-- $1 shard, $2 room_id, $3 user_id, $4 role.
update members set role = ($4::text)::member_role
where shard = $1 and room_id = $2 and user_id = $3 and left_at is null
