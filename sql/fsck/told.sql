-- One event per reported transition: the last event names the status; an unsettled delivery has no event or was
-- redriven last. The event 'delivery.fallback' does not count: it changes no status. Of most deliveries the event that
-- `event_seq` names is the one; only of others all events are read.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
with doubtful as materialized (
  select d.message_id, d.no, d.status
  from deliveries d
  left join event_history e
    on e.shard = $1 and e.message_id >= $2 and e.message_id < $3
      and e.message_id = d.message_id and e.no = d.no and e.seq = d.event_seq
  where d.shard = $1 and d.message_id >= $2 and d.message_id < $3
    and case when d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
        then coalesce(e.event, '') not in ('', 'delivery.redriven')
      else coalesce(e.event, '') <> case d.status when 'SENT' then 'delivery.sent'
        when 'DELIVERED' then 'delivery.delivered' else 'delivery.' || lower(d.status::text) end end
)
select d.message_id as "message_id!", d.no as "no!",
  format('%s, last event %s', d.status, coalesce(e.event, 'none')) as "found!"
from doubtful d
left join (
  select distinct on (message_id, no) message_id, no, event
  from event_history
  where shard = $1 and message_id >= $2 and message_id < $3 and no > 0 and event <> 'delivery.fallback'
  order by message_id, no, seq desc
) e using (message_id, no)
where case when d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
    then coalesce(e.event, '') not in ('', 'delivery.redriven')
  else coalesce(e.event, '') <> 'delivery.' || lower(d.status::text) end
