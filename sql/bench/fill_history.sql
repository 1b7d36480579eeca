-- Inserts the statistics of deliveries that `bench/fill` wrote as SENT or FAILED; and of FAILED ones attempts and
-- events, which SENT ones have in their own rows.
-- $1 shard, $2 first message_id, $3 number of messages, $4 time of the attempts, $5 partner_id, $6 lane, $7 status.
with c as (
  insert into stat_deltas (partner_id, counted_at, lane, total, success, failed)
  values ($5, $4, $6, $3::bigint, ($7 = 'SENT')::int * $3::bigint, ($7 = 'FAILED')::int * $3::bigint)
),
a as (
  insert into attempts (shard, message_id, no, attempt, outcome, worker, claimed_at, called_at, ended_at, provider)
  select $1, $2 + n, 1, 1, 'REJECTED', 1, $4, $4, $4, 'noop'
  from generate_series(0, $3::bigint - 1) as n
  where $7 = 'FAILED'
)
insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
select $1, $2 + n, 1, 1, 1, 'delivery.failed', $4 from generate_series(0, $3::bigint - 1) as n where $7 = 'FAILED'
