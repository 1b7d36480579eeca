-- Sent, and no receipt came in time: at most $3 of them, held still. $1 shard[], $2 now.
select d.shard, d.message_id, d.no, d.lane, d.status::text as "status!", d.attempt, d.reason, d.partner_id, d.provider,
  d.has_fallback, d.receipt_due, d.settled_at
from unnest($1::smallint[]) as s(shard)
cross join lateral (
  select d.* from deliveries d
  where d.shard = s.shard and d.receipt_due <= $2
  order by d.receipt_due
  limit $3
  for no key update skip locked
) d
limit $3
