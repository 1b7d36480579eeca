-- Deliveries to an endpoint, newest first, each with its event and its last call.
-- $1 partner_id, $2 its shard, $3 recipient (the endpoint), $4 message_id below this, $5 message_id from this on, $6
-- status, $7 event (each of the two may be null: not filtered), $8 rows at most.
select d.message_id, d.no, d.content, d.status::text as "status!", d.reason, d.ready_at, d.settled_at, m.kind, m.about,
  m.detail::text as "detail!", m.created_at, coalesce(n.calls, 0) as "calls!", a.attempt as "attempt?",
  a.outcome::text as outcome, a.called_at, a.ended_at, a.code, a.reason as error, a.detail as answer,
  a.provider_ref
from deliveries d
join messages m on m.shard = d.shard and m.message_id = d.message_id
left join lateral (
  select a.attempt, a.outcome, a.called_at, a.ended_at, a.code, a.reason, a.detail, a.provider_ref
  from attempts a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.called_at is not null
  order by a.attempt desc
  limit 1
) a on true
left join lateral (
  select count(*) as calls
  from attempts a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.called_at is not null
) n on true
where d.partner_id = $1 and d.shard = $2 and d.recipient = $3 and d.lane between 66 and 71 and d.message_id < $4
  and d.message_id >= $5 and ($6::text is null or d.status = ($6::text)::delivery_status)
  and ($7::text is null or m.kind = $7)
order by d.message_id desc
limit $8
