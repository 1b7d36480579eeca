-- Attempts are numbered 1..n without gaps; the current attempt of a PROCESSING delivery may have a row or not.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select d.message_id as "message_id!", d.no as "no!",
  format('%s, attempt %s, rows %s, highest %s', d.status, d.attempt, coalesce(a.n, 0), coalesce(a.top, 0)) as "found!"
from deliveries d
left join (
  select shard, message_id, no, count(*) as n, max(attempt) as top
  from attempt_history
  where shard = $1 and message_id >= $2 and message_id < $3
  group by shard, message_id, no
) a using (shard, message_id, no)
where d.shard = $1 and d.message_id >= $2 and d.message_id < $3
  and (coalesce(a.n, 0) <> coalesce(a.top, 0)
    or coalesce(a.top, 0) not between d.attempt - (d.status = 'PROCESSING')::int and d.attempt)
