-- One event for each promised transition: the last event names the status; what has not ended has none, or was redriven.
select d.message_id as "message_id!", d.no as "no!", format('%s, last event %s', d.status, coalesce(e.event, 'none')) as "found!"
from deliveries d
left join events e on e.shard = d.shard and e.message_id = d.message_id and e.no = d.no and e.seq = d.event_seq
where case when d.status in ('SCHEDULED', 'PENDING', 'PROCESSING') then coalesce(e.event, '') not in ('', 'delivery.redriven')
  else coalesce(e.event, '') <> 'delivery.' || lower(d.status::text) end
