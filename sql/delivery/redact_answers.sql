-- Erases providers' answers about these deliveries and the providers' own ids. The receipts are locked by the caller.
-- An event key, which is the provider's text, is replaced by its SHA-256, so that a repeated receipt is still
-- recognised.
-- $1 shard, $2 message_id, $3 no[].
with sends as (
  update deliveries set sent_ref = null
  where shard = $1 and message_id = $2 and no = any($3) and sent_ref is not null
),
attempts as (
  update attempts set detail = null, provider_ref = null, receipt_code = null, code = null
  where shard = $1 and message_id = $2 and no = any($3)
),
refs as (
  delete from provider_refs where message_id = $2 and shard = $1 and no = any($3)
)
update receipts set detail = null, provider_ref = null, code = null, event_key = case
  when event_key ~ '^[0-9a-f]{64}$' then event_key
  else encode(sha256(convert_to(event_key, 'UTF8')), 'hex') end
where shard = $1 and message_id = $2 and no = any($3)
