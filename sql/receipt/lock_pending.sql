-- Locks receipts that are due for evaluation. Receipts locked by another process are skipped. A receipt without our
-- reference is matched by the provider's own id.
-- $1 now, $2 rows at most, $3 try_at from this on.
select r.provider, r.event_key, r.received_at, coalesce(r.shard, p.shard) as shard,
  coalesce(r.message_id, p.message_id) as message_id, coalesce(r.no, p.no) as no,
  coalesce(r.attempt, p.attempt) as attempt, r.outcome::text as "outcome!", r.class, r.code, r.occurred_at, r.try_at
from receipts r
left join provider_refs p on r.message_id is null and p.provider = r.provider and p.provider_ref = r.provider_ref
where r.applied_at is null and r.try_at <= $1 and r.try_at >= $3
order by r.try_at
limit $2
for update of r skip locked
