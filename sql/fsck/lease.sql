-- A status and its lease agree. Message ids from $1 up to, not including, $2.
select message_id as "message_id!", no as "no!", status::text as "found!"
from deliveries
where message_id >= $1 and message_id < $2
  and (status = 'PROCESSING') <> (lease_until is not null and worker is not null)
