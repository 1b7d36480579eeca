-- Ends what was not seen for its kind's time; what comes back is to be told. $1 kind[], $2 seconds[], $3 now.
update alerts a
set cleared_at = $3
from unnest($1::text[], $2::float8[]) as k(kind, quiet)
where a.cleared_at is null and split_part(a.cause, ':', 1) = k.kind
  and a.seen_at < $3::timestamptz - make_interval(secs => k.quiet)
returning a.cause, a.opened_at, a.times, a.detail
