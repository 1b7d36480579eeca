-- Number of waiting requests and the age of the oldest by the database's clock. Counting stops at $1, so that it stays
-- cheap with a backlog.
-- $1 requests to count at most.
select (select count(*) from (select from notihub.requests limit $1) x) as "requests!",
  coalesce((
    select extract(epoch from clock_timestamp() - enqueued_at) from notihub.requests order by request_id limit 1
  ), 0)::bigint as "oldest_s!"
