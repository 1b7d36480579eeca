-- Destinations with a pace. $1 what was to be sent before this is forgotten, $2 now, $3 a shorter interval in ms is
-- none.
select provider, destination, next_at, interval_ms, failures from destination_paces
where next_at >= $1 and (next_at > $2 or interval_ms >= $3)
order by provider, destination
