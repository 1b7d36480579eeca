-- No channel stands still while workers run and its providers are healthy: if one of its deliveries is PENDING for five
-- minutes, then in that time a delivery of the channel was called, or one of its providers was paused, limited, or had
-- an open breaker. A provider without any delivery may serve any channel. Returns the oldest delivery of each channel.
-- $1 now, $2 the channel of each lane, from lane 0 on[].
with waits as (
  select distinct on (channel) channel, message_id, no, ready_at
  from (select ($2::text[])[lane + 1] as channel, message_id, no, ready_at from deliveries where status = 'PENDING') d
  where ready_at < $1::timestamptz - interval '5 minutes'
  order by channel, ready_at
),
called as (
  select ($2::text[])[d.lane + 1] as channel
  from attempt_history a
  join deliveries d using (shard, message_id, no)
  where a.called_at >= $1::timestamptz - interval '5 minutes'
  group by 1
),
serves as materialized (
  select ($2::text[])[lane + 1] as channel, provider from deliveries where provider is not null group by 1, 2
),
unwell as materialized (
  select provider from provider_states where paused_at is not null or breaker <> 'CLOSED'
  union
  select provider from provider_holds where ended_at >= $1::timestamptz - interval '5 minutes'
)
select w.message_id as "message_id!", w.no as "no!",
  format('%s: PENDING since %s, and no call for five minutes', w.channel, w.ready_at) as "found!"
from waits w
where not exists (select from called c where c.channel = w.channel)
  and not exists (
    select from serves s where s.channel = w.channel and s.provider in (select provider from unwell))
  and not exists (select from unwell u where not exists (select from serves s where s.provider = u.provider))
  and exists (
    select from workers
    where seen_at >= $1::timestamptz - interval '1 minute' and started_at < $1::timestamptz - interval '5 minutes')
