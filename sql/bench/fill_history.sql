-- The attempts and events of deliveries made as SENT, and their statistics. $1 shard, $2 first message id, $3 how many,
-- $4 when, $5 partner, $6 lane.
with c as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed) values ($5, $4, $6, $3::bigint, $3::bigint, 0)
),
a as (
  insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, provider)
  select $1, $2 + n, 1, 1, 'ACCEPTED', 1, $4, $4, $4, 'noop' from generate_series(0, $3::bigint - 1) as n
)
insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
select $1, $2 + n, 1, 1, 1, 'delivery.sent', $4 from generate_series(0, $3::bigint - 1) as n
