-- Locks those of these deliveries that a fallback may replace: they have an unused fallback, and no cancellation was
-- requested. Locks in the order of the keys.
-- $1 shard[], $2 message_id[], $3 no[], $4 and $5 the smallest and largest message_id (partition pruning).
select d.shard, d.message_id, d.no, d.lane, d.status::text as "status!", d.attempt, d.content, d.partner_id, d.provider,
  d.recipient, d.written
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
  and d.message_id between $4 and $5
where d.has_fallback and not d.cancel_requested and d.status in ('PENDING', 'SENT', 'FAILED', 'EXPIRED', 'UNDETERMINED')
order by d.shard, d.message_id, d.no
for no key update of d
