-- Destinations that have a pace now. A shorter interval than $3 limits nothing and is left out.
-- $1 next_at from this on (older paces no longer count), $2 now, $3 least interval in ms.
select provider, destination, next_at, interval_ms, failures from destination_paces
where next_at >= $1 and (next_at > $2 or interval_ms >= $3)
order by provider, destination
