-- Locks the running job that has waited longest, among those whose rate allows a step by now.
-- $1 now, $2 shortest time in seconds that a step must be worth.
select redrive_id, kind::text as "kind!", partner_id, endpoint_id, filter, rate_per_second, status::text as "status!",
  expected, done, position, requested_by, created_at, stepped_at, finished_at
from redrives
where status = 'RUNNING'
  and stepped_at <= $1::timestamptz - make_interval(secs => greatest(1.0 / rate_per_second::float8, $2::float8))
order by stepped_at
limit 1
for update skip locked
