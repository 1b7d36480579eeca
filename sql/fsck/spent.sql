-- No delivery waits for an attempt beyond its max_attempts.
-- $1 message_id from this on, $2 message_id below this.
select message_id as "message_id!", no as "no!",
  format('%s with %s of %s attempts spent', status, attempt, max_attempts) as "found!"
from deliveries
where message_id >= $1 and message_id < $2 and status in ('PENDING', 'SCHEDULED') and attempt >= max_attempts
