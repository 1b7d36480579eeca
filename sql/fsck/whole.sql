-- A message, its deliveries, attempts and events exist together, under one partner.
-- $1 message_id from this on, $2 message_id below this.
with m as not materialized (
  select shard, message_id, partner_id from messages where message_id >= $1 and message_id < $2
),
d as not materialized (
  select shard, message_id, no, partner_id from deliveries where message_id >= $1 and message_id < $2
),
e as not materialized (
  select shard, message_id, no, seq from events where message_id >= $1 and message_id < $2
)
select m.message_id as "message_id!", 0::smallint as "no!", 'message without deliveries' as "found!"
from m
where not exists (select from d where d.shard = m.shard and d.message_id = m.message_id)
union all
select d.message_id, d.no, 'delivery without its message, or of another partner'
from d
where not exists (
  select from m where m.shard = d.shard and m.message_id = d.message_id and m.partner_id = d.partner_id)
union all
select a.message_id, a.no, format('attempt %s without its delivery', a.attempt)
from attempts a
where a.message_id >= $1 and a.message_id < $2 and not exists (
  select from d where d.shard = a.shard and d.message_id = a.message_id and d.no = a.no)
union all
select e.message_id, e.no, format('event %s without its delivery', e.seq)
from e
where e.no > 0 and not exists (select from d where d.shard = e.shard and d.message_id = e.message_id and d.no = e.no)
union all
select e.message_id, e.no, format('event %s without its message', e.seq)
from e
where e.no = 0 and not exists (select from m where m.shard = e.shard and m.message_id = e.message_id)
