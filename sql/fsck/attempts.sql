-- Attempts are 1..n without gaps; of the one in progress a row may or may not exist yet.
select d.message_id as "message_id!", d.no as "no!",
  format('%s, attempt %s, rows %s, highest %s', d.status, d.attempt, coalesce(a.n, 0), coalesce(a.top, 0)) as "found!"
from deliveries d
left join (select shard, message_id, no, count(*) as n, max(attempt) as top from attempts group by 1, 2, 3) a
  using (shard, message_id, no)
where coalesce(a.n, 0) <> coalesce(a.top, 0)
  or coalesce(a.top, 0) not between d.attempt - (d.status = 'PROCESSING')::int and d.attempt
