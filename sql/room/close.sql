-- Closes a room: no member may write any more. The caller holds the lock of its gate.
-- $1 shard, $2 room_id, $3 now.
with head as (
  update room_gates set is_open = false where shard = $1 and room_id = $2
)
update rooms set closed_at = $3, updated_at = $3 where shard = $1 and room_id = $2 and closed_at is null
