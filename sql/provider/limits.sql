-- Booked requests of every provider's limit.
select provider, state from provider_limits
