-- Erases personal data from a receipt that matches no attempt. Its event key is replaced by its SHA-256, so that a
-- repeated receipt is still recognised.
-- $1 provider, $2 event_key.
update receipts set detail = null, provider_ref = null, code = null, event_key = case
  when event_key ~ '^[0-9a-f]{64}$' then event_key
  else encode(sha256(convert_to(event_key, 'UTF8')), 'hex') end
where provider = $1 and event_key = $2
