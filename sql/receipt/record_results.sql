-- Records the result of evaluating receipts, or when they are evaluated again.
-- $1 provider[], $2 event_key[], $3 effect[] (null: waits for its delivery), $4 next evaluation[] (null: never, it is
-- done), $5 now; the attempt, where it is known by now: $6 shard[], $7 message_id[], $8 no[], $9 attempt[].
update receipts r
set shard = d.shard, message_id = d.message_id, no = d.no, attempt = d.attempt,
  effect = d.effect, try_at = coalesce(d.retry_at, r.try_at),
  applied_at = case when d.retry_at is null then $5::timestamptz end
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $6::smallint[], $7::bigint[],
  $8::smallint[], $9::smallint[])
  as d(provider, event_key, effect, retry_at, shard, message_id, no, attempt)
where r.provider = d.provider and r.event_key = d.event_key
