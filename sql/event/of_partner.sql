-- What happened to a partner's messages in a slice of time, oldest first, as far as it is told: not what happened to the
-- telling. With what the attempt that ended with it came to. Whatever is believed of a slice's size, the rest is looked up by
-- key: hence the limits.
-- $1 partner, $2 its shard, $3 at this time or later, $4 before, only behind ($3, message $5, no $6, seq $7); $8 ids of messages
-- below this (prunes the partitions), $9 which events[], $10 lanes below this, $11 rows.
with happened as materialized (
  select e.shard, e.message_id, e.no, e.seq, e.attempt, e.event, e.reason, e.occurred_at
  from events e
  where e.shard = $2 and e.occurred_at >= $3 and e.occurred_at < $4
    and (e.occurred_at, e.message_id, e.no, e.seq) > ($3, $5, $6::smallint, $7::smallint) and e.message_id < $8
    and e.event = any($9)
)
select e.message_id, e.no, e.seq, e.attempt, e.event, e.reason, e.occurred_at, m.priority, d.lane as "lane?",
  a.provider as "provider?", a.code as "code?"
from happened e
cross join lateral (
  select m.priority from messages m
  where m.shard = e.shard and m.message_id = e.message_id and m.partner_id = $1 and m.about is null
  limit 1
) m
left join lateral (
  select d.lane from deliveries d where d.shard = e.shard and d.message_id = e.message_id and d.no = e.no limit 1
) d on true
left join lateral (
  select a.provider, a.code from attempts a
  where a.shard = e.shard and a.message_id = e.message_id and a.no = e.no and a.attempt = e.attempt
    and a.ended_at = e.occurred_at
  limit 1
) a on true
where e.no = 0 or d.lane < $10
order by e.occurred_at, e.message_id, e.no, e.seq
limit $11
