-- Workers not seen since $1, or the one that leaves ($2, may be null).
delete from workers where seen_at < $1 or worker_id = $2
