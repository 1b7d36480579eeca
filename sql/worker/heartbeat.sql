-- Records that a worker process is alive.
-- $1 worker_id, $2 host, $3 pid, $4 version, $5 now.
insert into workers (worker_id, host, pid, version, started_at, seen_at) values ($1, $2, $3, $4, $5, $5)
on conflict (worker_id) do update set seen_at = excluded.seen_at
