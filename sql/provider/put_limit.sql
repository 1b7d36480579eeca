-- What is booked now, by who holds the row. $1 provider, $2 state, $3 now.
update provider_limits set state = $2, changed_at = $3 where provider = $1
