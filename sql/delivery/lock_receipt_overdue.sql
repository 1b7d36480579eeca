-- Locks SENT deliveries whose receipt did not come in time. Leaves out deliveries with a receipt that is not evaluated
-- yet, and those of a polled provider whose list was not read to its end since the receipt was due.
-- $1 shard[], $2 now, $3 rows at most, $4 polled providers[].
select d.shard, d.message_id, d.no, d.lane, d.status::text as "status!", d.attempt, d.reason, d.partner_id, d.provider,
  d.has_fallback, d.receipt_due, d.settled_at
from unnest($1::smallint[]) as s(shard)
cross join lateral (
  select d.* from deliveries d
  where d.shard = s.shard and d.receipt_due <= $2
    and not (coalesce(d.provider, '') = any($4::text[]) and not exists (
      select from provider_cursors c where c.provider = d.provider and c.polled_at > d.receipt_due))
    and not exists (
      select from receipts r
      where r.shard = d.shard and r.message_id = d.message_id and r.no = d.no
        and r.applied_at is null and r.effect is null)
  order by d.receipt_due
  limit $3
  for no key update skip locked
) d
limit $3
