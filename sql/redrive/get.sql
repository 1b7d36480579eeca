-- A job.
-- $1 redrive_id, $2 partner_id whose own job it must be (null: any job).
select redrive_id, kind::text as "kind!", partner_id, endpoint_id, filter, rate_per_second, status::text as "status!",
  expected, done, position, requested_by, created_at, stepped_at, finished_at
from redrives
where redrive_id = $1 and ($2::bigint is null or (partner_id = $2 and kind <> 'REDRIVE'))
