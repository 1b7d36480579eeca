-- The rooms that a user is in, also hidden ones.
-- $1 shard, $2 user_id.
select room_id from members where user_id = $2 and shard = $1 and left_at is null order by room_id
