-- What is booked of all limits.
select provider, state from provider_limits
