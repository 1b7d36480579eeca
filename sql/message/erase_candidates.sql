-- Messages of a partner that still name a recipient, oldest first, each with the number of its deliveries and whether
-- one of them is not settled.
-- $1 partner_id, $2 its shard, $3 message_id from this on, $4 message_id below this, $5 rows at most.
select m.message_id, d.deliveries as "deliveries!", d.has_unsettled as "has_unsettled!"
from messages m
cross join lateral (
  select count(*) as deliveries, coalesce(bool_or(d.recipient <> 'erased'), false) as named,
    coalesce(bool_or(d.status = any('{SCHEDULED,PENDING,PROCESSING}'::delivery_status[])), false) as has_unsettled
  from deliveries d
  where d.shard = m.shard and d.message_id = m.message_id
) d
where m.partner_id = $1 and m.shard = $2 and m.message_id >= $3 and m.message_id < $4 and d.named
order by m.message_id
limit $5
