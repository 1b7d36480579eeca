-- Locks and returns the booked requests of a provider's limit, so that the next process sees what this one books.
-- $1 provider.
select state from provider_limits where provider = $1 for update
