-- A destination that was in trouble works again: what waits for it comes one message each $4 ms. $1 provider, $2
-- destination, $3 now.
update destination_paces set next_at = $3, interval_ms = $4, turns = 0, failures = 0, changed_at = $3
where provider = $1 and destination = $2 and failures > 0
