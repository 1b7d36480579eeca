-- Providers that are not asked as usual, because of what they answered.
select provider, reason, opened_at, open_until from provider_states where breaker <> 'CLOSED'
