-- Records that a destination that failed works again: nothing waits for it any more.
-- $1 provider, $2 destination, $3 now.
update destination_paces set next_at = $3, interval_ms = 0, turns = 0, failures = 0, changed_at = $3
where provider = $1 and destination = $2 and failures > 0
