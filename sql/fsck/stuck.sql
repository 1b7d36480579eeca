-- What is due moves: no lease is over, and no scheduled time past, by more than five minutes. $1 now; message ids from
-- $2 up to, not including, $3.
select message_id as "message_id!", no as "no!",
  format('%s since %s', status, coalesce(lease_until, ready_at)) as "found!"
from deliveries
where message_id >= $2 and message_id < $3
  and ((status = 'PROCESSING' and lease_until < clock_timestamp() - interval '5 minutes')
    or (status = 'SCHEDULED' and ready_at < $1::timestamptz - interval '5 minutes'))
