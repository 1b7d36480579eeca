-- Attempts of these messages' deliveries in which the provider was called.
-- $1 partner_id, $2 its shard, $3 message_id[], $4 and $5 the smallest and largest of those ids (partition pruning).
select a.message_id as "message_id!", a.no as "no!", a.attempt as "attempt!", a.outcome::text as "outcome!",
  a.called_at as "called_at!", a.ended_at, a.next_at, a.reason, a.code, a.detail, a.provider_ref
from unnest($3::bigint[]) as k(message_id)
join deliveries d on d.shard = $2 and d.message_id = k.message_id and d.message_id between $4 and $5
join attempt_history a on a.shard = d.shard and a.message_id = d.message_id and a.no = d.no
where d.partner_id = $1 and a.message_id between $4 and $5 and a.called_at is not null
order by a.message_id, a.no, a.attempt
