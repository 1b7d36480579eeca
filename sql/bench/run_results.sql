-- The result of each message of a fault-injection run; the message's token is its kind. `may_be_sent` counts attempts
-- that the provider accepted or may have accepted.
select m.kind, m.message_id, d.status::text as "status!", (
  select count(*) from attempt_history a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.outcome in ('ACCEPTED', 'UNKNOWN')
) as "may_be_sent!"
from messages m
join deliveries d on d.shard = m.shard and d.message_id = m.message_id
-- Webhook messages are checked by their receivers.
where m.about is null
