-- Events of messages that callers watch, from a time on, each with what its webhook says.
-- One each per message: $1 shard[], $2 message_id[], $3 occurred_at from this on[]. For all: $4 and $5 the smallest and
-- largest message_id (partition pruning).
select e.shard as "shard!", e.message_id as "message_id!", e.no as "no!", e.seq as "seq!", e.attempt as "attempt!",
  e.event as "event!", e.reason, e.occurred_at as "occurred_at!", d.lane as "lane?", a.provider as "provider?",
  a.code as "code?"
from unnest($1::smallint[], $2::bigint[], $3::timestamptz[]) as w(shard, message_id, since)
join event_history e on e.shard = w.shard and e.message_id = w.message_id and e.message_id between $4 and $5
left join deliveries d on d.shard = e.shard and d.message_id = e.message_id and d.no = e.no
  and d.message_id between $4 and $5
left join attempt_history a on a.shard = e.shard and a.message_id = e.message_id and a.no = e.no
  and a.attempt = e.attempt and a.message_id between $4 and $5
where e.occurred_at >= w.since
order by e.occurred_at, e.no, e.seq
