-- Replaces the detail of a message.
-- $1 shard, $2 message_id, $3 detail (JSON text).
update messages set detail = ($3::text)::jsonb where shard = $1 and message_id = $2
