-- Stores receipts, each event key once. Keys come sorted and unique, so that two writers cannot deadlock. After an
-- erasure only the SHA-256 of a key is stored, so that is compared too. A receipt first received without our reference
-- (from a polled list) gets it when it comes again with it (by a callback).
-- $1 provider, $2 now; one each per receipt: $3 event_key[], $4 shard[], $5 message_id[], $6 no[], $7 attempt[], $8
-- provider_ref[], $9 outcome[] (null: unreadable), $10 class[], $11 code[], $12 detail[], $13 occurred_at[].
insert into receipts (provider, event_key, received_at, shard, message_id, no, attempt, provider_ref, outcome, class,
  code, detail, occurred_at, try_at, applied_at, effect)
select $1, r.event_key, $2, r.shard, r.message_id, r.no, r.attempt, r.provider_ref, r.outcome, r.class, r.code,
  r.detail, r.occurred_at, $2, case when r.outcome is null then $2::timestamptz end,
  case when r.outcome is null then 'unreadable' end
from unnest($3::text[], $4::smallint[], $5::bigint[], $6::smallint[], $7::smallint[], $8::text[],
  $9::text[]::receipt_outcome[], $10::text[], $11::text[], $12::text[], $13::timestamptz[])
  as r(event_key, shard, message_id, no, attempt, provider_ref, outcome, class, code, detail, occurred_at)
where not exists (
  select from receipts k where k.provider = $1 and k.event_key = encode(sha256(convert_to(r.event_key, 'UTF8')), 'hex'))
on conflict (provider, event_key) do update
set shard = excluded.shard, message_id = excluded.message_id, no = excluded.no, attempt = excluded.attempt,
  try_at = excluded.try_at
where receipts.message_id is null and receipts.applied_at is null and excluded.message_id is not null
