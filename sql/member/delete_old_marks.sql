-- Deletes marks of readers from before a time.
-- $1 before this, $2 rows at most.
delete from read_marks where (shard, room_id, user_id, up_to_no) in (
  select shard, room_id, user_id, up_to_no from read_marks where read_at < $1 limit $2)
