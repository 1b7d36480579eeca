-- The attempts of these deliveries, as far as they tell what became of them. One that only asked whether an earlier one had been
-- taken sent nothing. $1 shard[], $2 message_id[], $3 no[], $4 and $5
-- the smallest and largest message id.
select a.shard, a.message_id, a.no, a.attempt,
  case when a.outcome = 'UNKNOWN' and a.code = 'lookup_failed' then 'NOT_CALLED' else a.outcome::text end as "outcome!", a.provider, a.receipt::text as receipt,
  a.receipt_reason
from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as k(shard, message_id, no)
join attempts a on a.shard = k.shard and a.message_id = k.message_id and a.no = k.no and a.message_id between $4 and $5
order by a.shard, a.message_id, a.no, a.attempt
