-- Messages of one or several partners, newest first, each with the lane, status, attempts and chain of its deliveries.
-- Excludes webhook messages.
-- $1 partner_id[], $2 its shard[], $3 message_id below this (page and end of the time range), $4 message_id from this
-- on (start of the time range); filters, each may be null: $5 kind, $6 client_msg_id, $7 and $8 first and last lane of
-- a channel, $9 recipient as stored or as the partner gave it, $11 the same as E.164, $12 the same as a lower-case
-- e-mail address; $10 rows at most.
select m.message_id, m.partner_id, m.client_msg_id, m.kind, m.priority, m.detail::text as "detail!", m.created_at,
  m.scheduled_at, m.expires_at, d.lanes as "lanes!", d.statuses as "statuses!", d.attempts as "attempts!",
  d.chains as "chains!: Vec<Option<i16>>"
from unnest($1::bigint[], $2::smallint[]) as p(partner_id, shard)
cross join lateral (
  select m.*
  from messages m
  where m.partner_id = p.partner_id and m.shard = p.shard and m.message_id < $3 and m.message_id >= $4
    and m.about is null
    and ($5::text is null or m.kind = $5)
    and ($6::text is null or m.message_id = (
      select i.message_id from idempotency i
      where i.shard = p.shard and i.partner_id = p.partner_id and i.client_msg_id = $6))
    and (($7::smallint is null and $9::text is null) or exists (
      select from deliveries x
      where x.shard = m.shard and x.message_id = m.message_id and ($7::smallint is null or x.lane between $7 and $8)
        and ($9::text is null or x.recipient in ($9, $11) or x.written = $9
          or lower(x.recipient collate "C") = $12::text)))
  order by m.message_id desc
  limit $10
) m
cross join lateral (
  select array_agg(d.lane order by d.no) as lanes, array_agg(d.status::text order by d.no) as statuses,
    array_agg(d.attempt order by d.no) as attempts, array_agg(d.chain order by d.no) as chains
  from deliveries d
  where d.shard = m.shard and d.message_id = m.message_id
) d
order by m.message_id desc
limit $10
