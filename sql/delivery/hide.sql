-- Who these deliveries went to, and what providers said of them, is erased. $1 shard, $2 message_id, $3 no[].
with attempts as (
  update attempts set detail = null, provider_ref = null where shard = $1 and message_id = $2 and no = any($3)
),
receipts as (
  update receipts set detail = null, provider_ref = null where shard = $1 and message_id = $2 and no = any($3)
)
update deliveries set recipient = 'erased', written = null where shard = $1 and message_id = $2 and no = any($3)
