-- Receipts of a message, in the order of their arrival.
-- $1 partner_id, $2 its shard, $3 message_id, $4 rows at most.
select r.provider, r.event_key, r.received_at, r.no as "no!", r.attempt as "attempt!", r.outcome::text as "outcome!",
  r.class, r.code, r.detail, r.occurred_at, r.applied_at, r.effect
from receipts r
join deliveries d on d.shard = r.shard and d.message_id = r.message_id and d.no = r.no
where d.partner_id = $1 and r.shard = $2 and r.message_id = $3 and r.outcome is not null
  and r.effect is distinct from 'unmatched'
order by r.received_at, r.event_key
limit $4
