-- Deletes former contents of messages that were replaced before a time.
-- $1 before this, $2 rows at most.
delete from chat_versions where (shard, room_id, seq, version) in (
  select shard, room_id, seq, version from chat_versions where ended_at < $1 limit $2)
