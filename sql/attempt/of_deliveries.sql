-- Attempts of these deliveries, as the evaluation of receipts needs them. An attempt that was only a lookup of an
-- earlier one (code 'lookup_failed') sent nothing and counts as NOT_CALLED.
-- $1 shard[], $2 message_id[], $3 no[], $4 and $5 the smallest and largest message_id (partition pruning).
select a.shard, a.message_id, a.no, a.attempt,
  case when a.outcome = 'UNKNOWN' and a.code = 'lookup_failed' then 'NOT_CALLED' else a.outcome::text end as "outcome!",
  a.provider, a.receipt::text as receipt, a.receipt_reason
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join attempts a on a.shard = k.shard and a.message_id = k.message_id and a.no = k.no and a.message_id between $4 and $5
order by a.shard, a.message_id, a.no, a.attempt
