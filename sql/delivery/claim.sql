-- Claim: takes the oldest PENDING rows of the named lanes, each lane from its watermark on, and makes them mine with a
-- lease, in one statement. The attempt is spent here, before any call can happen: its number is the fence. Rows held by
-- others are passed over. The lease runs by the database's clock.
-- $1 shard[], $2 lane[], $3 watermark[], $4 most from that lane[]; $5 most in all, $6 worker, $7 lease in seconds, $8 whether the beginning of a call
-- is recorded before it[], one for each lane.
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
