-- How far the members of a room have read.
-- $1 shard, $2 room_id.
select user_id as "user_id!", read_no as "read_no!", delivered_no as "delivered_no!"
from current_members
where shard = $1 and room_id = $2 and left_at is null
