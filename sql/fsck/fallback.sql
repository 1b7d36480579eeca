-- What took another's place did so once, and that is told; what stands by still was not asked.
select d.message_id as "message_id!", d.no as "no!", format('%s stands for %s, which is not there', d.no, d.chain) as "found!"
from deliveries d
where d.chain <> d.no and not exists (
  select from deliveries o
  where o.shard = d.shard and o.message_id = d.message_id and o.no = d.chain and o.chain = d.chain)
union all
select c.message_id, c.chain, format('%s deliveries in its chain, %s times told', c.n, c.told)
from (
  select d.shard, d.message_id, d.chain, count(*) as n, (
    select count(*) from events e
    join deliveries o on o.shard = e.shard and o.message_id = e.message_id and o.no = e.no
    where e.shard = d.shard and e.message_id = d.message_id and e.event = 'delivery.fallback' and o.chain = d.chain) as told
  from deliveries d
  where d.chain is not null
  group by d.shard, d.message_id, d.chain
) c
where c.n <> c.told + 1
