-- A FAILED or UNDETERMINED delivery has an attempt that was called or may have been, or an ending that needs no call. A
-- late attempt without called_at may have been called, as far as was known when it ended.
-- $1 endings without a call, as reasons of deliveries or codes of attempts[], $2 message_id from this on, $3 message_id
-- below this.
select d.message_id as "message_id!", d.no as "no!",
  format('%s (%s) after %s attempts, none of which was called', d.status, d.reason, d.attempt) as "found!"
from deliveries d
where d.message_id >= $2 and d.message_id < $3
  and d.status in ('FAILED', 'UNDETERMINED') and coalesce(d.reason, '') <> all($1::text[])
  and not exists (
    select from attempt_history a
    where a.message_id >= $2 and a.message_id < $3
      and a.shard = d.shard and a.message_id = d.message_id and a.no = d.no
      and (a.called_at is not null or a.outcome in ('ACCEPTED', 'UNKNOWN') or a.late or a.receipt is not null
        or a.code = any($1::text[])))
