-- Events of a delivery are numbered 1..k without gaps, and k is its event_seq. Events of a message as a whole have no =
-- 0.
-- $1 message_id from this on, $2 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  format('event_seq %s, rows %s, highest %s', d.event_seq, coalesce(e.n, 0), coalesce(e.top, 0)) as "found!"
from deliveries d
left join (
  select shard, message_id, no, count(*) as n, max(seq) as top
  from event_history
  where message_id >= $1 and message_id < $2
  group by shard, message_id, no
) e using (shard, message_id, no)
where d.message_id >= $1 and d.message_id < $2
  and (coalesce(e.n, 0) <> d.event_seq or coalesce(e.top, 0) <> d.event_seq)
union all
select message_id, 0::smallint, format('events of the whole: %s, highest %s', count(*), max(seq))
from event_history
where no = 0 and message_id >= $1 and message_id < $2
group by message_id
having count(*) <> max(seq) or max(seq) > 2
  or bool_or(event <> case seq when 1 then 'message.accepted' else 'message.completed' end)
