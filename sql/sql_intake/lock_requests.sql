-- Locks waiting requests: of each partner the oldest first, an equal share for each partner. One relay at a time has a
-- partner, until its transaction ends, so that requests become messages in their order. A request that another relay
-- committed meanwhile is found deleted when it is locked, and skipped. The waiting time is measured by the database's
-- clock, which also set enqueued_at.
-- $1 partner_id after this, $2 partner_id to skip[], $3 partners at most, $4 requests at most, $5 bytes (the first
-- request that reaches this sum is the last).
with recursive waiting as (
  (select partner_id from notihub.requests where partner_id > $1 order by partner_id limit 1)
  union all
  select (select r.partner_id from notihub.requests r where r.partner_id > w.partner_id order by r.partner_id limit 1)
  from waiting w where w.partner_id is not null
),
-- More partners than needed, because other relays may have locked the first ones.
candidates as materialized (
  select partner_id from waiting where partner_id is not null and partner_id <> all ($2::bigint[]) limit $3::bigint * 16
),
turn as materialized (
  select l.partner_id from hub_locks l
  where l.name = 'relay' and l.partner_id = any (array(select partner_id from candidates))
  order by l.partner_id
  limit $3
  for update skip locked
),
locked as materialized (
  select r.request_id, r.partner_id, r.body, r.enqueued_at,
    row_number() over (partition by r.partner_id order by r.request_id) as position
  from turn t
  cross join lateral (
    select q.request_id, q.partner_id, q.body, q.enqueued_at
    from notihub.requests q
    where q.partner_id = t.partner_id
    order by q.request_id
    limit (select greatest($4::bigint / count(*), 1) from turn)
    for update of q skip locked
  ) r
),
summed as (
  select *, sum(octet_length(body)) over (order by position, partner_id) - octet_length(body) as bytes_before
  from locked
)
select request_id as "request_id!", partner_id as "partner_id!", body as "body!",
  extract(epoch from clock_timestamp() - enqueued_at)::float8 as "waited_s!"
from summed
where bytes_before < $5
order by position, partner_id
limit $4
