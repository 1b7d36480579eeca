-- Nothing waits for an attempt that it may not make. Message ids from $1 up to, not including, $2.
select message_id as "message_id!", no as "no!",
  format('%s with %s of %s attempts spent', status, attempt, max_attempts) as "found!"
from deliveries
where message_id >= $1 and message_id < $2 and status in ('PENDING', 'SCHEDULED') and attempt >= max_attempts
