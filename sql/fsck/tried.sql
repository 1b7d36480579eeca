-- A FAILED or UNDETERMINED delivery has an attempt that was called or may have been, or an ending that needs no call. A
-- late attempt without called_at may have been called, as far as was known when it ended.
-- $1 shard, $2 message_id from this on, $3 message_id below this, $4 endings without a call, as reasons of
-- deliveries or codes of attempts[].
select d.message_id as "message_id!", d.no as "no!",
  format('%s (%s) after %s attempts, none of which was called', d.status, d.reason, d.attempt) as "found!"
from deliveries d
where d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  -- Not `in`, for which the planner may read an index of all failures.
  and case d.status when 'FAILED' then true when 'UNDETERMINED' then true else false end
  and coalesce(d.reason, '') <> all($4::text[])
  and not exists (
    select from attempts a
    where a.shard = $1 and a.message_id >= $2 and a.message_id < $3
      and a.shard = d.shard and a.message_id = d.message_id and a.no = d.no
      and (a.called_at is not null or a.outcome in ('ACCEPTED', 'UNKNOWN') or a.late or a.receipt is not null
        or a.code = any($4::text[])))
