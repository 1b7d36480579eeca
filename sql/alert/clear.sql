-- Closes open alerts whose cause was last seen longer ago than its kind allows, and returns them. A cause that comes
-- back later opens a new alert.
-- $1 kind[], $2 seconds without a sighting after which an alert of that kind is closed[], $3 now.
update alerts a
set cleared_at = $3
from unnest($1::text[], $2::float8[]) as k(kind, quiet)
where a.cleared_at is null and split_part(a.cause, ':', 1) = k.kind
  and a.seen_at < $3::timestamptz - make_interval(secs => k.quiet)
returning a.cause, a.opened_at, a.times, a.detail
