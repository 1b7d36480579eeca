-- Records that a destination failed again: nothing is sent there before $4, then one message per $5 ms until it works.
-- Another process may have counted as many failures, or more: the higher number stays. No row is returned for a call
-- made before the last recorded failure: it failed together with that one and is no new information.
-- $1 provider, $2 destination, $3 now, $4 next_at, $5 interval in ms, $6 failures in a row, $7 when the call was made.
insert into destination_paces as p (provider, destination, next_at, interval_ms, turns, failures, changed_at)
values ($1, $2, $4, $5, 0, $6, $3)
on conflict (provider, destination) do update set next_at = excluded.next_at, turns = 0,
  interval_ms = excluded.interval_ms, failures = greatest(p.failures, excluded.failures),
  changed_at = excluded.changed_at
where p.failures = 0 or p.changed_at <= $7
returning next_at, interval_ms, failures
