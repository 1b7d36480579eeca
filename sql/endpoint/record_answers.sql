-- Adds the times at which endpoints answered one process, and returns for each whether it has now been failing for too
-- long.
-- $1 endpoint_id[], $2 last success[], $3 last failure[], $4 first failure after the last success, or the first of
-- all[] (each may hold nulls); $5 failing since this time or longer is too long.
update endpoints e
set last_success_at = greatest(e.last_success_at, h.success_at),
  last_failure_at = greatest(e.last_failure_at, h.failure_at),
  failing_since = case when h.success_at is not null then h.failing_since
    else coalesce(e.failing_since, h.failing_since) end
from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
  as h(endpoint_id, success_at, failure_at, failing_since)
where e.endpoint_id = h.endpoint_id
returning e.endpoint_id,
  coalesce(e.failing_since <= $5 and h.failure_at is not null and e.status in ('ACTIVE', 'PAUSED'), false)
    as "too_long!"
