-- Replaces the content of a message, by an edit or a deletion, and keeps what was there for moderators.
-- $1 shard, $2 room_id, $3 seq, $4 content, $5 now, $6 by, $7 whether it is deleted.
with former as (
  insert into chat_versions (shard, room_id, seq, version, chat_id, content, ended_at, ended_by)
  select shard, room_id, seq, version, chat_id, content, $5, $6
  from chat_messages
  where shard = $1 and room_id = $2 and seq = $3
)
update chat_messages
set content = $4, version = version + 1, edited_at = case when $7 then edited_at else $5 end,
  deleted_at = case when $7 then $5 end, deleted_by = case when $7 then $6 end
where shard = $1 and room_id = $2 and seq = $3
