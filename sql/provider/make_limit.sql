-- Creates a provider's limit without booked requests, unless it exists.
-- $1 provider, $2 now.
insert into provider_limits (provider, state, changed_at) values ($1, '{}', $2) on conflict (provider) do nothing
