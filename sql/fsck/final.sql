-- A final status changes only along the transitions that receipts and late acceptances make, or by a redrive, after
-- which any event may follow. The event 'delivery.fallback' does not count: it changes no status.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select e.message_id as "message_id!", e.no as "no!",
  format('%s after %s', e.event, e.before) as "found!"
from (
  select e.message_id, e.no, e.event, lag(e.event) over (partition by e.message_id, e.no order by e.seq) as before
  from (
    select distinct message_id, no
    from event_history
    where shard = $1 and message_id >= $2 and message_id < $3 and no > 0 and seq > 1
  ) changed
  join event_history e using (message_id, no)
  where e.shard = $1 and e.message_id >= $2 and e.message_id < $3 and e.event <> 'delivery.fallback'
) e
where e.before is not null and (e.before, e.event) not in (
  ('delivery.undetermined', 'delivery.sent'), ('delivery.undetermined', 'delivery.delivered'),
  ('delivery.undetermined', 'delivery.failed'), ('delivery.undetermined', 'delivery.expired'),
  ('delivery.sent', 'delivery.delivered'), ('delivery.sent', 'delivery.failed'), ('delivery.sent', 'delivery.expired'),
  ('delivery.sent', 'delivery.undetermined'), ('delivery.expired', 'delivery.failed'),
  ('delivery.failed', 'delivery.delivered'), ('delivery.expired', 'delivery.delivered'),
  ('delivery.canceled', 'delivery.delivered'), ('delivery.failed', 'delivery.redriven'),
  ('delivery.undetermined', 'delivery.redriven'))
  and (e.before <> 'delivery.redriven' or e.event = 'delivery.redriven')
