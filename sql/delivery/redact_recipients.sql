-- Erases the recipients of these deliveries.
-- $1 shard, $2 message_id, $3 no[].
update deliveries set recipient = 'erased', written = null where shard = $1 and message_id = $2 and no = any($3)
