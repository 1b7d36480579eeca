-- A message is sent now, and the next one an interval later; none is returned when it is too early. After each $4
-- messages without a "too fast" the interval is a fifth shorter. One that fails again and again is called by one message,
-- and not again before $5, when that has an answer. $1 provider, $2 destination, $3 now, $4 messages.
update destination_paces set turns = turns + 1,
  next_at = case when failures > 0 then $5 else $3::timestamptz + make_interval(secs => interval_ms / 1000.0) end,
  interval_ms = case when (turns + 1) % $4::int = 0 then interval_ms * 4 / 5 else interval_ms end, changed_at = $3
where provider = $1 and destination = $2 and next_at <= $3
returning next_at, interval_ms, failures
