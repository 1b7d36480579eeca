-- Counts members in, or out for a negative number. No row: there is no room left.
-- $1 shard, $2 room_id, $3 how many.
update room_gates set members = members + $3
where shard = $1 and room_id = $2 and members + $3 <= most_members
returning members
