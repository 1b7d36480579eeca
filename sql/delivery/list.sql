-- Deliveries of one partner, or of several, newest first. Walks the messages, because they are what is indexed by partner.
-- $1 partner[], $2 its shard[], $3 and $4: only after message $3, delivery number $4 in the order of the list (ids fall,
-- numbers rise), $5 ids below this, $6 ids from this on, $7 status, $8 and $9 lanes from–to (a channel; null: all but
-- WEBHOOK), $10 provider, $11 reason, $12 recipient, as kept or as written, $14 the same as E.164, $15 the same as an
-- e-mail address in small letters: each may be null, but $1 to $6. $13 rows.
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
