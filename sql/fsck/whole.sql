-- A message, its deliveries, attempts and events exist together, under one partner. The order of messages, and the
-- condition on created_at that always holds, make the planner read their primary key, whatever the statistics: another
-- index has all columns that are needed, and does not bound a slice.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
with m as not materialized (
  select message_id, partner_id
  from messages
  where shard = $1 and message_id >= $2 and message_id < $3 and created_at > '-infinity'
  order by message_id
),
d as not materialized (
  select message_id, no, partner_id from deliveries where shard = $1 and message_id >= $2 and message_id < $3
),
e as not materialized (
  select message_id, no, seq from events where shard = $1 and message_id >= $2 and message_id < $3
)
select coalesce(m.message_id, d.message_id) as "message_id!", coalesce(d.no, 0::smallint) as "no!",
  case when d.message_id is null then 'message without deliveries'
    else 'delivery without its message, or of another partner' end as "found!"
from m
full join d using (message_id)
where m.partner_id is distinct from d.partner_id
union all
select under.message_id, under.no, format(under.found, under.n)
from (
  select message_id, no, attempt as n, 'attempt %s without its delivery' as found
  from attempts
  where shard = $1 and message_id >= $2 and message_id < $3
  union all
  select message_id, no, seq, 'event %s without its delivery' from e where no > 0
) under
where not exists (select from d where d.message_id = under.message_id and d.no = under.no)
union all
select e.message_id, e.no, format('event %s without its message', e.seq)
from e
where e.no = 0 and not exists (select from m where m.message_id = e.message_id)
