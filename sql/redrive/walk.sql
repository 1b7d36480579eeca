-- The next dead letters of a partner, in the order of their ids. The look is bounded, not the find: a filter that passes
-- few is walked in slices, and the last row looked at comes back in any case, to go on from.
-- $1 partner, $2 its shard, $3 status, only behind message $4, delivery number $5; $6 rows to look at. Those that match: $7 and $8 lanes
-- from–to, $9 provider, $10 reason, $11 recipient, $12 died at this time or later, each may be null; $13 died before.
with seen as materialized (
  select d.message_id, d.no, d.lane, d.status, d.attempt, d.event_seq, d.content, d.settled_at, d.recipient, d.provider,
    d.reason, d.shard, d.chain
  from deliveries d
  -- The words written out are for the plan: they are the index's own, so that it is taken whatever is believed of a partition.
  where d.shard = $2 and d.partner_id = $1 and d.status = ($3::text)::delivery_status
    and d.status in ('FAILED', 'EXPIRED', 'UNDETERMINED') and (d.message_id, d.no) > ($4, $5::smallint)
  order by d.message_id, d.no
  limit $6
),
judged as (
  select s.*, row_number() over (order by message_id, no) as position,
    ($7::smallint is null or lane between $7 and $8) and ($9::text is null or provider = $9)
    and ($10::text is null or reason = $10) and ($11::text is null or recipient = $11)
    and ($12::timestamptz is null or settled_at >= $12) and settled_at < $13 as matches
  from seen s
)
select message_id, no, lane, status::text as "status!", attempt, event_seq, content, settled_at, recipient,
  exists (
    select from deliveries o
    where o.shard = judged.shard and o.message_id = judged.message_id and o.chain = judged.chain and o.no > judged.no
  ) as "replaced!",
  position as "position!", coalesce(matches, false) as "matches!"
from judged
where matches or position = (select count(*) from seen)
order by position
