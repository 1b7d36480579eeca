-- No channel stands still while workers run and its providers are healthy: if one of its deliveries is PENDING since
-- five minutes before the check began, then from that time on a delivery of the channel was called, or one of its
-- providers was paused, limited, or had an open breaker. A provider without any delivery may serve any channel. Returns
-- the oldest delivery of each channel.
-- $1 when the check began, $2 the channel of each lane, from lane 0 on[]; as gathered from all slices: $3 channels with
-- a call[], and which provider has deliveries of which channel: $4 channel[], $5 provider[].
with waits as (
  select distinct on (channel) channel, message_id, no, ready_at
  from (
    select distinct on (shard, lane) ($2::text[])[lane + 1] as channel, message_id, no, ready_at
    from deliveries
    where status = 'PENDING'
    order by shard, lane, ready_at
  ) of_lane
  where ready_at < $1::timestamptz - interval '5 minutes'
  order by channel, ready_at
),
serves as materialized (
  select channel, provider from unnest($4::text[], $5::text[]) as s(channel, provider)
),
unwell as materialized (
  select provider from provider_states where paused_at is not null or breaker <> 'CLOSED'
  union
  select provider from provider_holds where ended_at >= $1::timestamptz - interval '5 minutes'
)
select w.message_id as "message_id!", w.no as "no!",
  format('%s: PENDING since %s, and no call for five minutes', w.channel, w.ready_at) as "found!"
from waits w
where w.channel <> all($3::text[])
  and not exists (
    select from serves s where s.channel = w.channel and s.provider in (select provider from unwell))
  and not exists (select from unwell u where not exists (select from serves s where s.provider = u.provider))
  and exists (
    select from workers
    where seen_at >= $1::timestamptz - interval '1 minute' and started_at < $1::timestamptz - interval '5 minutes')
