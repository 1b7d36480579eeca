-- Records the beginning of calls before the calls, on channels where a call of unknown outcome must not be repeated.
-- Fenced by status, attempt and worker like settle; only the returned keys may be called. The lease must outlast the
-- longest statement, so that the reaper cannot take a delivery back while this statement runs.
-- $1 shard[], $2 message_id[], $3 no[], $4 attempt[], $5 worker, $6 claimed_at, $7 now, $8 provider[], $9 and $10 the
-- smallest and largest message_id (partition pruning), $11 status PROCESSING (bound for the plan's sake, as in settle),
-- $12 seconds that the lease must still last.
insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, provider)
select d.shard, d.message_id, d.no, d.attempt, 'IN_FLIGHT', $5, $6, $7, b.provider
from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::smallint[], $8::text[])
  as b(shard, message_id, no, attempt, provider)
join deliveries d on d.shard = b.shard and d.message_id = b.message_id and d.no = b.no
where d.message_id between $9 and $10 and d.status = ($11::text)::delivery_status and d.attempt = b.attempt
  and d.worker = $5 and d.lease_until > clock_timestamp() + make_interval(secs => $12)
returning shard, message_id, no
