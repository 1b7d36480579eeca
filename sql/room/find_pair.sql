-- The room of two users.
-- $1 shard, $2 partner_id, $3 pair_key.
select room_id from rooms where pair_key = $3 and shard = $1 and partner_id = $2
