-- Events of a partner's messages in a time range, oldest first; excludes events of webhook deliveries. Each comes with
-- the provider and code of its attempt, and a fallback event with the event before it and the delivery that took over.
-- The lookups after the first step go by key; `limit 1` in each keeps the planner to that, whatever it estimates.
-- $1 partner_id, $2 its shard, $3 occurred_at from this on, $4 occurred_at before this, only after (occurred_at $3,
-- message_id $5, no $6, seq $7); $8 message_id below this (partition pruning), $9 events[], $10 rows at most.
with happened as materialized (
  select e.shard, e.message_id, e.no, e.seq, e.attempt, e.event, e.reason, e.occurred_at
  from event_history e
  where e.shard = $2 and e.occurred_at >= $3 and e.occurred_at < $4
    and (e.occurred_at, e.message_id, e.no, e.seq) > ($3, $5, $6::smallint, $7::smallint) and e.message_id < $8
    and e.event = any($9)
)
select e.message_id as "message_id!", e.no as "no!", e.seq as "seq!", e.attempt as "attempt!", e.event as "event!",
  e.reason, e.occurred_at as "occurred_at!", m.priority, d.lane as "lane?",
  case
    when e.event = 'delivery.fallback' then d.provider
    when a.ended_at = e.occurred_at then a.provider
    when e.event = any(
        '{delivery.sent,delivery.delivered,delivery.failed,delivery.expired,delivery.undetermined}'::text[])
      and coalesce(e.reason, '') <> all('{canceled,expired,expired_before_retry,channel_down}'::text[])
      then coalesce(a.provider, d.provider)
  end as "provider?",
  case when a.ended_at = e.occurred_at and e.event <> 'delivery.fallback' then a.code end as "code?",
  f.previous_event as "previous_event?", f.no as "fallback_no?", f.lane as "fallback_lane?"
from happened e
cross join lateral (
  select m.priority from messages m
  where m.shard = e.shard and m.message_id = e.message_id and m.partner_id = $1 and m.about is null
  limit 1
) m
left join lateral (
  select d.lane, d.provider, d.chain from deliveries d
  where d.shard = e.shard and d.message_id = e.message_id and d.no = e.no
  limit 1
) d on true
left join lateral (
  select a.provider, a.code, a.ended_at from attempt_history a
  where a.shard = e.shard and a.message_id = e.message_id and a.no = e.no and a.attempt = e.attempt
  limit 1
) a on true
left join lateral (
  select f.no, f.lane, (
    select b.event from event_history b
    where b.shard = e.shard and b.message_id = e.message_id and b.no = e.no and b.seq = e.seq - 1
    limit 1) as previous_event
  from deliveries f
  where e.event = 'delivery.fallback' and f.shard = e.shard and f.message_id = e.message_id and f.chain = d.chain
    and f.no > e.no
  order by f.no
  limit 1
) f on true
order by e.occurred_at, e.message_id, e.no, e.seq
limit $10
