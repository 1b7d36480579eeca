-- Nothing waits for an attempt that it may not make.
select message_id as "message_id!", no as "no!", format('%s with %s of %s attempts spent', status, attempt, max_attempts) as "found!"
from deliveries where status in ('PENDING', 'SCHEDULED') and attempt >= max_attempts
