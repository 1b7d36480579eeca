-- Extends the lease of a delivery whose call is still waiting for its answer. Fenced like settle: no row is updated if
-- the worker has lost the delivery. The lease runs by the database's clock.
-- $1 shard, $2 message_id, $3 no, $4 attempt, $5 worker, $6 status PROCESSING (bound for the plan's sake, as in
-- settle), $7 lease in seconds.
update deliveries
set lease_until = clock_timestamp() + make_interval(secs => $7)
where shard = $1 and message_id = $2 and no = $3 and attempt = $4 and worker = $5
  and status = ($6::text)::delivery_status
