-- Locks the gate of a room and returns its head: what happens in a room is numbered one by one.
-- $1 shard, $2 room_id.
select seq as "seq!", no as "no!", last_seq as "last_seq!", last_id as "last_id!", members as "members!",
  most_members as "most_members!"
from lock_room_gates(array[$1::smallint], array[$2::bigint])
