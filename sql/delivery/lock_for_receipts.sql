-- Locks deliveries and returns what the evaluation of receipts needs. Locks in the order of the keys, so that two
-- batches cannot deadlock.
-- $1 shard[], $2 message_id[], $3 no[], $4 and $5 the smallest and largest message_id (partition pruning).
select d.shard, d.message_id, d.no, d.lane, d.status::text as "status!", d.attempt, d.reason, d.partner_id, d.provider,
  d.has_fallback, d.receipt_due, d.settled_at, d.sent_called_at is not null as "has_send_record!"
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
  and d.message_id between $4 and $5
order by d.shard, d.message_id, d.no
for no key update of d
