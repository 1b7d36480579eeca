-- What providers said of these deliveries, and their own ids of them, is erased. Receipts are held by now. Of their keys, which
-- are the provider's own words, the digests stay: so what was told is known if it is told again.
-- $1 shard, $2 message_id, $3 no[].
with attempts as (
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
