-- Workers seen since a time, newest first.
-- $1 seen_at from this on.
select worker_id, host, pid, version, started_at, seen_at from workers where seen_at >= $1 order by worker_id desc
