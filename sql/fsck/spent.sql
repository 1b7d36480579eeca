-- No delivery waits for an attempt beyond its max_attempts.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select message_id as "message_id!", no as "no!",
  format('%s with %s of %s attempts spent', status, attempt, max_attempts) as "found!"
from deliveries
where shard = $1 and message_id >= $2 and message_id < $3 and status in ('PENDING', 'SCHEDULED')
  and attempt >= max_attempts
