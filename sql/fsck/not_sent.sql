-- We never say FAILED, EXPIRED or CANCELED of something a provider took or may have taken, unless a receipt says that
-- it came to nothing. An attempt that only asked whether an earlier one had been taken sent nothing. Message ids from
-- $1 up to, not including, $2.
select a.message_id as "message_id!", a.no as "no!",
  format('%s, but attempt %s %s', d.status, a.attempt, a.outcome) as "found!"
from deliveries d
join attempts a using (shard, message_id, no)
where a.message_id >= $1 and a.message_id < $2 and d.message_id >= $1 and d.message_id < $2
  and d.status in ('FAILED', 'EXPIRED', 'CANCELED') and a.outcome in ('ACCEPTED', 'UNKNOWN')
  and coalesce(a.receipt, 'ACCEPTED') not in ('EXPIRED', 'FAILED')
  and not (a.outcome = 'UNKNOWN' and coalesce(a.code, '') = 'lookup_failed')
