-- Takes the turn for one message now; the next one is an interval later. No row is returned if it is too early. After
-- every $4 messages without "too fast" the interval becomes a fifth shorter. A failing destination gets one message,
-- and no other before $5, by when that one has its answer.
-- $1 provider, $2 destination, $3 now, $4 messages, $5 next_at of a failing destination.
update destination_paces set turns = turns + 1,
  next_at = case when failures > 0 then $5 else $3::timestamptz + make_interval(secs => interval_ms / 1000.0) end,
  interval_ms = case when (turns + 1) % $4::int = 0 then interval_ms * 4 / 5 else interval_ms end, changed_at = $3
where provider = $1 and destination = $2 and next_at <= $3
returning next_at, interval_ms, failures
