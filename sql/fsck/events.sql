-- Events of a delivery are numbered 1..k without gaps, and k is its event_seq. Events of a message as a whole have no =
-- 0.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select coalesce(d.message_id, e.message_id) as "message_id!", coalesce(d.no, e.no) as "no!",
  case when d.no is null then format('events of the whole: %s, highest %s', e.n, e.top)
    else format('event_seq %s, rows %s, highest %s', d.event_seq, coalesce(e.n, 0), coalesce(e.top, 0))
  end as "found!"
from (
  select message_id, no, event_seq from deliveries where shard = $1 and message_id >= $2 and message_id < $3
) d
full join (
  select message_id, no, count(*) as n, max(seq) as top,
    bool_or(no = 0 and event <> case seq when 1 then 'message.accepted' else 'message.completed' end) as is_wrong
  from event_history
  where shard = $1 and message_id >= $2 and message_id < $3
  group by message_id, no
) e on e.message_id = d.message_id and e.no = d.no
where case when d.no is not null then coalesce(e.n, 0) <> d.event_seq or coalesce(e.top, 0) <> d.event_seq
  -- Events of a delivery that is not there are a finding of `whole`.
  else e.no = 0 and (e.n <> e.top or e.top > 2 or e.is_wrong) end
