-- Attempts of a message's deliveries, ordered by delivery and attempt.
-- $1 partner_id, $2 its shard, $3 message_id, $4 no (null: all deliveries).
select a.no as "no!", a.attempt as "attempt!", a.outcome::text as "outcome!", a.late as "late!", a.worker as "worker!",
  a.claimed_at as "claimed_at!", a.called_at, a.ended_at, a.next_at, a.provider, a.reason, a.code,
  a.detail, a.provider_ref, a.receipt::text as receipt, a.receipt_reason, a.receipt_code, a.receipt_at
from attempt_history a
join deliveries d on d.shard = a.shard and d.message_id = a.message_id and d.no = a.no
where d.partner_id = $1 and a.shard = $2 and a.message_id = $3 and ($4::smallint is null or a.no = $4)
order by a.no, a.attempt
