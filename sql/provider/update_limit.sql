-- Replaces the booked requests of a provider's limit. The caller holds the row's lock.
-- $1 provider, $2 state (JSON), $3 now.
update provider_limits set state = $2, changed_at = $3 where provider = $1
