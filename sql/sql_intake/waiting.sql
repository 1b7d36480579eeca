-- How many requests wait, and for how long the oldest has, by the clock that told when it came. Counting stops at $1, so that
-- looking stays cheap in a backlog.
select (select count(*) from (select from notihub.requests limit $1) x) as "requests!",
  coalesce((
    select extract(epoch from clock_timestamp() - enqueued_at) from notihub.requests order by request_id limit 1
  ), 0)::bigint as "oldest_s!"
