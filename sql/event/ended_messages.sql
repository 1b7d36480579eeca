-- Of these messages those of which every delivery has ended, each with the distinct (lane, status, chain) of its
-- deliveries, webhooks left out, and whether its completion is recorded.
-- $1 shard[], $2 message_id[], $3 and $4 the smallest and largest of those ids (partition pruning).
select m.shard, m.message_id, m.partner_id, m.priority, m.created_at, d.lanes as "lanes!", d.statuses as "statuses!",
  d.chains as "chains!: Vec<Option<i16>>",
  exists (
    select from events e
    where e.shard = m.shard and e.message_id = m.message_id and e.no = 0 and e.seq = 2
  ) as "completion_recorded!"
from unnest($1::smallint[], $2::bigint[]) as k(shard, message_id)
join messages m on m.shard = k.shard and m.message_id = k.message_id and m.message_id between $3 and $4
cross join lateral (
  select array_agg(x.lane) as lanes, array_agg(x.status::text) as statuses, array_agg(x.chain) as chains
  from (
    select distinct d.lane, d.status, d.chain from deliveries d
    where d.shard = k.shard and d.message_id = k.message_id and d.message_id between $3 and $4
      and d.lane not between 66 and 71
      and not exists (
        select from deliveries o
        where o.shard = k.shard and o.message_id = k.message_id and o.message_id between $3 and $4
          and o.lane not between 66 and 71 and o.status in ('SCHEDULED', 'PENDING', 'PROCESSING'))
  ) x
) d
where d.lanes is not null
