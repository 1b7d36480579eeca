-- A delivery has a lease and a worker if and only if it is PROCESSING.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select message_id as "message_id!", no as "no!", status::text as "found!"
from deliveries
where shard = $1 and message_id >= $2 and message_id < $3
  and (status = 'PROCESSING') <> (lease_until is not null and worker is not null)
