-- The partner of a message, for operators.
-- $1 shard[], $2 message_id.
select partner_id from messages where shard = any($1) and message_id = $2
