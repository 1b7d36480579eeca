-- Workers seen since $1, newest first.
select worker_id, host, pid, version, started_at, seen_at from workers where seen_at >= $1 order by worker_id desc
