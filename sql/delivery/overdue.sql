-- Reap, first half: locks the rows whose lease is over, re-checked under the lock; the second half is settle, in the
-- same transaction. Each shard is walked from where nothing live was seen before. `begun` says whether the call is on
-- record as begun, and `provider` who was asked; without `begins_recorded` no record proves nothing. `deaths`: workers that were lost before while they held it.
-- $1 shard[], $2 watermark, $3 rows at most.
select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.cancel_requested, d.expires_at,
  d.has_fallback, d.begins_recorded, d.worker as "worker!", d.lease_until as "lease_until!", exists (
    select from attempts a
    where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.attempt = d.attempt
      and a.outcome = 'IN_FLIGHT'
  ) as "begun!", (
    select a.provider from attempts a
    where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.attempt = d.attempt
      and a.outcome = 'IN_FLIGHT'
  ) as "provider?", coalesce((
    select s.deaths from suspects s where s.shard = d.shard and s.message_id = d.message_id and s.no = d.no
  ), 0::smallint) as "deaths!"
from unnest($1::smallint[]) as s(shard)
cross join lateral (
  select d.* from deliveries d
  where d.shard = s.shard and d.status = 'PROCESSING' and d.lease_until >= $2 and d.lease_until < clock_timestamp()
  order by d.lease_until
  limit $3
  for update skip locked
) d
limit $3
