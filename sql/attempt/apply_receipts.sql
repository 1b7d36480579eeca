-- Writes onto attempts the furthest outcome that receipts report. Their deliveries are locked by the caller.
-- $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 receipt outcome[], $6 receipt reason[], $7 receipt code[], $8
-- receipt time[], $9 provider[], $10 and $11 the smallest and largest message_id (partition pruning).
update attempts a
set receipt = r.outcome, receipt_reason = r.reason, receipt_code = r.code, receipt_at = r.at,
  provider = coalesce(a.provider, r.provider)
from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[]::receipt_outcome[], $6::text[],
  $7::text[], $8::timestamptz[], $9::text[]) as r(shard, message_id, no, attempt, outcome, reason, code, at, provider)
where a.shard = r.shard and a.message_id = r.message_id and a.no = r.no and a.attempt = r.attempt
  and a.message_id between $10 and $11
