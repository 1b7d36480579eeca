-- Dead letters of a partner in the order of their ids. Reads a bounded number and always returns the last one read, to
-- continue after it: a filter that few pass is walked in slices.
-- $1 partner_id, $2 its shard, $3 status, $4 and $5: only after message_id $4, no $5; $6 rows to read; filters, each
-- may be null: $7 and $8 first and last lane, $9 provider, $10 reason, $11 recipient, $12 settled_at from this on; $13
-- settled_at before this.
with read as materialized (
  select d.message_id, d.no, d.lane, d.status, d.attempt, d.event_seq, d.content, d.settled_at, d.recipient, d.provider,
    d.reason, d.shard, d.chain
  from deliveries d
  -- For the plan: the literals are those of the partial index, so that it is used whatever the statistics are.
  where d.shard = $2 and d.partner_id = $1 and d.status = ($3::text)::delivery_status
    and d.status in ('FAILED', 'EXPIRED', 'UNDETERMINED') and (d.message_id, d.no) > ($4, $5::smallint)
  order by d.message_id, d.no
  limit $6
),
matched as (
  select s.*, row_number() over (order by message_id, no) as position,
    ($7::smallint is null or lane between $7 and $8) and ($9::text is null or provider = $9)
    and ($10::text is null or reason = $10) and ($11::text is null or recipient = $11)
    and ($12::timestamptz is null or settled_at >= $12) and settled_at < $13 as matches
  from read s
)
select message_id, no, lane, status::text as "status!", attempt, event_seq, content, settled_at, recipient,
  exists (
    select from deliveries o
    where o.shard = matched.shard and o.message_id = matched.message_id and o.chain = matched.chain
      and o.no > matched.no
  ) as "replaced!",
  position as "position!", coalesce(matches, false) as "matches!"
from matched
where matches or position = (select count(*) from read)
order by position
