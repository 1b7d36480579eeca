-- Records sightings of causes. `is_new` is true for a cause without an open alert: operators have to be notified of it.
-- $1 cause[] (each once), $2 times seen[], $3 detail[], $4 now.
insert into alerts (cause, opened_at, seen_at, times, detail)
select cause, $4, $4, times, detail
from unnest($1::text[], $2::bigint[], $3::text[]) as c(cause, times, detail)
-- The same order everywhere, so that two processes cannot deadlock.
order by cause
on conflict (cause) where cleared_at is null
  do update set seen_at = greatest(alerts.seen_at, excluded.seen_at), times = alerts.times + excluded.times
returning cause, xmax = 0 as "is_new!"
