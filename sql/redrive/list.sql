-- Jobs, newest first.
-- $1 partner_id (null: all), $2 true: without jobs of operators, $3 redrive_id below this, $4 redrive_id from this on,
-- $5 rows at most.
select redrive_id, kind::text as "kind!", partner_id, endpoint_id, filter, rate_per_second, status::text as "status!",
  expected, done, position, requested_by, created_at, stepped_at, finished_at
from redrives
where ($1::bigint is null or partner_id = $1) and (not $2 or kind <> 'REDRIVE') and redrive_id < $3 and redrive_id >= $4
order by redrive_id desc
limit $5
