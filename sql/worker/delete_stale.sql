-- Deletes workers that were not seen since a time, and a worker that leaves.
-- $1 seen_at before this, $2 worker_id that leaves (may be null).
delete from workers where seen_at < $1 or worker_id = $2
