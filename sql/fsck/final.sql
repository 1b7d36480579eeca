-- Terminal is final, except that evidence lifts: a second event only follows `undetermined` or `sent`, upwards. And except
-- that dead letters are redriven when somebody asks; then anything may follow.
select e.message_id as "message_id!", e.no as "no!", format('%s after %s', e.event, p.event) as "found!"
from events e
join events p on p.shard = e.shard and p.message_id = e.message_id and p.no = e.no and p.seq = e.seq - 1
where e.no > 0 and (p.event, e.event) not in (
  ('delivery.undetermined', 'delivery.sent'), ('delivery.undetermined', 'delivery.delivered'),
  ('delivery.undetermined', 'delivery.failed'), ('delivery.sent', 'delivery.delivered'),
  ('delivery.sent', 'delivery.failed'), ('delivery.failed', 'delivery.redriven'),
  ('delivery.undetermined', 'delivery.redriven'))
  and (p.event <> 'delivery.redriven' or e.event = 'delivery.redriven')
