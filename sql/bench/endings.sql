-- What became of each message of a run in which faults were made; its token is its type. `may_be_sent` counts the
-- attempts of which the books admit that the provider took them, or may have.
select m.kind, m.message_id, d.status::text as "status!", (
  select count(*) from attempts a
  where a.shard = d.shard and a.message_id = d.message_id and a.no = d.no and a.outcome in ('ACCEPTED', 'UNKNOWN')
) as "may_be_sent!"
from messages m
join deliveries d on d.shard = m.shard and d.message_id = m.message_id
-- What tells of others is judged by who hears it.
where m.about is null
