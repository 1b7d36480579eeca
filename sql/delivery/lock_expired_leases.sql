-- Locks PROCESSING deliveries whose lease has ended; settle writes their next status in the same transaction. Each
-- shard is read from its watermark on. `begun`: the attempt has an IN_FLIGHT row, and `provider` is the one of that
-- row. If `begins_recorded` is false, a missing row proves nothing. `deaths`: workers lost earlier while they held the
-- delivery.
-- $1 shard[], $2 watermark (smallest lease_until), $3 rows at most.
select d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.possibly_sent, d.cancel_requested,
  d.expires_at, d.has_fallback, d.begins_recorded, d.worker as "worker!", d.lease_until as "lease_until!",
  exists (
    select from attempts a
    where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.attempt = d.attempt
      and a.outcome = 'IN_FLIGHT'
  ) as "has_in_flight_row!", (
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
