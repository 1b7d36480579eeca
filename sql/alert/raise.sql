-- Notes that these causes are there, each seen so often; those that come back are new: nobody was told of them yet.
-- $1 cause[], $2 times[], $3 detail[], $4 now.
insert into alerts (cause, opened_at, seen_at, times, detail)
select cause, $4, $4, times, detail
from unnest($1::text[], $2::bigint[], $3::text[]) as c(cause, times, detail)
-- In one order for all, so that two processes never wait for each other in a ring.
order by cause
on conflict (cause) where cleared_at is null
  do update set seen_at = greatest(alerts.seen_at, excluded.seen_at), times = alerts.times + excluded.times
returning cause, xmax = 0 as "is_new!"
