-- Receipts to look at; what another process looks at is passed over. $1 now, $2 rows.
select provider, event_key, received_at, shard, message_id, no, attempt, outcome::text as "outcome!", class, code, occurred_at
from receipts
where applied_at is null and try_at <= $1
order by try_at
limit $2
for update skip locked
