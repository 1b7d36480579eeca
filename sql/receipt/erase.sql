-- What a provider told of no attempt of ours, without what names a person; of its key the digest stays, so that it is known
-- if it is told again. $1 provider, $2 event_key.
update receipts set detail = null, provider_ref = null, code = null, event_key = case
  when event_key ~ '^[0-9a-f]{64}$' then event_key
  else encode(sha256(convert_to(event_key, 'UTF8')), 'hex') end
where provider = $1 and event_key = $2
