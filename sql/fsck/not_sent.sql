-- No delivery is FAILED, EXPIRED or CANCELED that a provider accepted or may have accepted, unless a receipt reports
-- that it was not delivered. An attempt that was only a lookup of an earlier one sent nothing.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select a.message_id as "message_id!", a.no as "no!",
  format('%s, but attempt %s %s', d.status, a.attempt, a.outcome) as "found!"
from deliveries d
join attempts a using (shard, message_id, no)
where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
  and d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and d.status in ('FAILED', 'EXPIRED', 'CANCELED') and a.outcome in ('ACCEPTED', 'UNKNOWN')
  and coalesce(a.receipt, 'ACCEPTED') not in ('EXPIRED', 'FAILED')
  and not (a.outcome = 'UNKNOWN' and coalesce(a.code, '') = 'lookup_failed')
