-- A message and all under it are there together, under one partner.
select m.message_id as "message_id!", 0::smallint as "no!", 'message without deliveries' as "found!"
from messages m
where not exists (select from deliveries d where d.shard = m.shard and d.message_id = m.message_id)
union all
select d.message_id, d.no, 'delivery without its message, or of another partner'
from deliveries d
where not exists (
  select from messages m where m.shard = d.shard and m.message_id = d.message_id and m.partner_id = d.partner_id)
union all
select a.message_id, a.no, format('attempt %s without its delivery', a.attempt)
from attempts a
where not exists (
  select from deliveries d where d.shard = a.shard and d.message_id = a.message_id and d.no = a.no)
union all
select e.message_id, e.no, format('event %s without its delivery', e.seq)
from events e
where not exists (
  select from deliveries d where d.shard = e.shard and d.message_id = e.message_id and d.no = e.no)
  and (e.no > 0 or not exists (select from messages m where m.shard = e.shard and m.message_id = e.message_id))
