-- Deliveries of one or several partners, newest first. Reads along the messages, which are indexed by partner.
-- $1 partner_id[], $2 its shard[], $3 and $4: only after message_id $3, no $4 in the order of the list (ids descending,
-- numbers ascending), $5 message_id below this, $6 message_id from this on; filters, each may be null: $7 status, $8
-- and $9 first and last lane of a channel (null: all channels but WEBHOOK), $10 provider, $11 reason, $12 recipient as
-- stored or as the partner gave it, $14 the same as E.164, $15 the same as a lower-case e-mail address; $13 rows at
-- most.
select d.message_id, d.no, d.lane, d.status::text as "status!", d.attempt, d.max_attempts, d.content, d.possibly_sent,
  d.cancel_requested, d.ready_at, d.lease_until, d.worker, d.expires_at, d.settled_at, d.recipient, d.written,
  d.provider, d.reason, d.partner_id, d.shard, d.chain, d.has_fallback, d.receipt_due
from unnest($1::bigint[], $2::smallint[]) as p(partner_id, shard)
cross join lateral (
  select d.*
  from messages m
  join deliveries d on d.shard = m.shard and d.message_id = m.message_id
  where m.partner_id = p.partner_id and m.shard = p.shard and m.message_id <= $3 and m.message_id < $5
    and m.message_id >= $6 and (m.message_id < $3 or d.no > $4)
    and ($7::text is null or d.status = $7::delivery_status)
    and (d.lane between $8 and $9 or $8::smallint is null and d.lane not between 66 and 71)
    and ($10::text is null or d.provider = $10)
    and ($11::text is null or d.reason = $11)
    and ($12::text is null or d.recipient in ($12, $14) or d.written = $12
      or lower(d.recipient collate "C") = $15::text)
  order by m.message_id desc, d.no
  limit $13
) d
order by d.message_id desc, d.no
limit $13
