-- Claims the oldest PENDING deliveries of the given lanes, each lane from its watermark on, for a worker, with a lease.
-- The attempt is counted here, before any call: its number is the fencing token. Rows locked by others are skipped. The
-- lease runs by the database's clock.
-- $1 shard[], $2 lane[], $3 watermark (smallest ready_at)[], $4 rows at most from that lane[]; $5 rows at most in all,
-- $6 worker, $7 lease in seconds, $8 whether the worker records the beginning of calls in that lane[].
with picked as materialized (
  select d.shard, d.message_id, d.no, l.begins_recorded
  from unnest($1::smallint[], $2::smallint[], $3::timestamptz[], $4::bigint[], $8::bool[])
    as l(shard, lane, mark, take, begins_recorded)
  cross join lateral (
    select d.shard, d.message_id, d.no
    from deliveries d
    where d.shard = l.shard and d.lane = l.lane and d.status = 'PENDING' and d.ready_at >= l.mark
    order by d.ready_at
    limit l.take
    for update skip locked
  ) d
  limit $5
)
update deliveries d
set status = 'PROCESSING', attempt = d.attempt + 1, worker = $6, begins_recorded = p.begins_recorded,
  lease_until = clock_timestamp() + make_interval(secs => $7)
from picked p
where d.shard = p.shard and d.message_id = p.message_id and d.no = p.no
returning d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.content, d.possibly_sent,
  d.cancel_requested, d.ready_at, d.expires_at, d.recipient, d.has_fallback, d.provider
