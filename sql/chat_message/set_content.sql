-- Writes a content sealed anew, unless an edit or a deletion has replaced it meanwhile.
-- $1 shard, $2 room_id, $3 seq, $4 version that was replaced, 0 the present one; $5 content as it was, $6 content.
with present as (
  update chat_messages set content = $6
  where $4::smallint = 0 and shard = $1 and room_id = $2 and seq = $3 and content = $5
)
update chat_versions set content = $6
where shard = $1 and room_id = $2 and seq = $3 and version = $4 and content = $5
