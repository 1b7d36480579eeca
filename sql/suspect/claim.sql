-- Claims one suspect: of the most urgent lane the one that has been claimable for longest. As in `delivery/claim` the
-- attempt is counted here, and the lease runs by the database's clock. The status is bound, not a literal: see
-- `delivery/settle`.
-- $1 shard[]; one each per lane: $2 lane[], $3 whether the worker records the beginning of calls there[]; $4 now, $5
-- worker, $6 lease in seconds, $7 status SCHEDULED, $8 the ready_at of suspects.
with picked as materialized (
  select d.shard, d.message_id, d.no, l.begins_recorded, s.deaths
  from suspects s
  join unnest($2::smallint[], $3::bool[]) as l(lane, begins_recorded) on l.lane = s.lane
  join deliveries d on d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
  where s.shard = any($1) and s.ready_at <= $4 and d.status = ($7::text)::delivery_status and d.ready_at = $8
  order by s.lane, s.ready_at
  limit 1
  for update of d skip locked
)
update deliveries d
set status = 'PROCESSING', attempt = d.attempt + 1, worker = $5, begins_recorded = p.begins_recorded,
  lease_until = clock_timestamp() + make_interval(secs => $6)
from picked p
where d.shard = p.shard and d.message_id = p.message_id and d.no = p.no
returning d.shard, d.message_id, d.no, d.lane, d.attempt, d.max_attempts, d.content, d.possibly_sent,
  d.cancel_requested, d.ready_at, d.expires_at, d.recipient, d.has_fallback, d.provider, p.deaths
