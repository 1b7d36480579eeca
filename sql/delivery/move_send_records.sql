-- Moves the records of sends from the deliveries' own rows to attempts and events, before anything else happens to the
-- deliveries. attempt_history and event_history show the same before and after. Keys come sorted, so that two batches
-- cannot deadlock.
-- $1 shard[], $2 message_id[], $3 no[], $4 and $5 the smallest and largest message_id (partition pruning).
with sends as materialized (
  select d.shard, d.message_id, d.no, d.attempt, d.event_seq, d.settled_at, d.provider, d.sent_worker,
    d.sent_claimed_at, d.sent_called_at, d.sent_ref
  from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
  join deliveries d on d.shard = k.shard and d.message_id = k.message_id and d.no = k.no
  where d.message_id between $4 and $5 and d.sent_called_at is not null
  for no key update of d
),
cleared as (
  update deliveries d
  set sent_worker = null, sent_claimed_at = null, sent_called_at = null, sent_ref = null
  from sends s
  where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no and d.message_id between $4 and $5
),
moved_attempts as (
  insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, provider,
    provider_ref)
  select shard, message_id, no, attempt, 'ACCEPTED', sent_worker, sent_claimed_at, sent_called_at, settled_at, provider,
    sent_ref
  from sends
)
insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
select shard, message_id, no, event_seq, attempt, 'delivery.sent', settled_at from sends
