-- A receipt that can be applied does not wait for more than five minutes.
-- $1 now.
select coalesce(r.message_id, 0) as "message_id!", coalesce(r.no, 0::smallint) as "no!",
  format('receipt %s of %s waits since %s', r.event_key, r.provider, r.received_at) as "found!"
from receipts r
where r.applied_at is null and r.effect is distinct from 'unmatched'
  and r.try_at < $1::timestamptz - interval '5 minutes'
