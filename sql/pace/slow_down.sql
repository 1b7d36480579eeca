-- Slows down a destination that answered "too fast". An earlier pace counts unless it is old: another process may have
-- received the same answer at the same time, and an answer to messages sent at the present pace means that this pace is
-- still too fast. The destination answers, so its failures are reset.
-- $1 provider, $2 destination, $3 now, $4 next_at, $5 interval in ms, $6 a next_at before this is old, $7 longest
-- interval in ms.
insert into destination_paces as p (provider, destination, next_at, interval_ms, turns, changed_at)
values ($1, $2, $4, $5, 0, $3)
on conflict (provider, destination) do update set turns = 0, failures = 0,
  next_at = case when p.failures > 0 then excluded.next_at else greatest(p.next_at, excluded.next_at) end,
  changed_at = excluded.changed_at,
  interval_ms = case
    when p.next_at < $6 or p.failures > 0 then excluded.interval_ms
    when p.turns > 0 then least($7, greatest(excluded.interval_ms, p.interval_ms * 5 / 4))
    else greatest(excluded.interval_ms, p.interval_ms)
  end
returning next_at, interval_ms, failures
