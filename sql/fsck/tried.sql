-- FAILED and UNDETERMINED were tried: an attempt was called, or may have been, or the books name an ending that needs
-- no call. What was not called and is late may have been called for all that was known when it ended.
-- $1 those endings, as reasons of deliveries or codes of attempts; message ids from $2 up to, not including,
-- $3.
select d.message_id as "message_id!", d.no as "no!",
  format('%s (%s) after %s attempts, none of which was called', d.status, d.reason, d.attempt) as "found!"
from deliveries d
where d.message_id >= $2 and d.message_id < $3
  and d.status in ('FAILED', 'UNDETERMINED') and coalesce(d.reason, '') <> all($1::text[])
  and not exists (
    select from attempts a
    where a.message_id >= $2 and a.message_id < $3
      and a.shard = d.shard and a.message_id = d.message_id and a.no = d.no
      and (a.called_at is not null or a.outcome in ('ACCEPTED', 'UNKNOWN') or a.late or a.receipt is not null
        or a.code = any($1::text[])))
