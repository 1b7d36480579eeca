-- One event per reported transition: the last event names the status; an unsettled delivery has no event or was
-- redriven last. The event 'delivery.fallback' does not count: it changes no status.
-- $1 message_id from this on, $2 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  format('%s, last event %s', d.status, coalesce(e.event, 'none')) as "found!"
from deliveries d
left join (
  select distinct on (shard, message_id, no) shard, message_id, no, event
  from event_history
  where message_id >= $1 and message_id < $2 and no > 0 and event <> 'delivery.fallback'
  order by shard, message_id, no, seq desc
) e using (shard, message_id, no)
where d.message_id >= $1 and d.message_id < $2
  and case when d.status in ('SCHEDULED', 'PENDING', 'PROCESSING')
      then coalesce(e.event, '') not in ('', 'delivery.redriven')
    else coalesce(e.event, '') <> 'delivery.' || lower(d.status::text) end
