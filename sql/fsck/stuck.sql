-- No lease and no scheduled time has passed by more than five minutes; and a suspect is claimed within 15 minutes of
-- its time, because each call of the suspects before it may take minutes.
-- $1 shard, $2 message_id from this on, $3 message_id below this, $4 now.
select message_id as "message_id!", no as "no!",
  format('%s since %s', status, coalesce(lease_until, ready_at)) as "found!"
from deliveries
where shard = $1 and message_id >= $2 and message_id < $3
  and ((status = 'PROCESSING' and lease_until < clock_timestamp() - interval '5 minutes')
    or (status = 'SCHEDULED' and ready_at < $4::timestamptz - interval '5 minutes'))
union all
select d.message_id, d.no, format('waits apart since %s', s.ready_at)
from suspects s
join deliveries d using (message_id, no)
where s.shard = $1 and s.message_id >= $2 and s.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and s.ready_at < $4::timestamptz - interval '15 minutes'
  and d.status::text = 'SCHEDULED' and d.ready_at > $4::timestamptz + interval '1000 years'
