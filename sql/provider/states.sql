-- What all processes know of providers; those without a row never failed and were never paused.
select provider, paused_at, paused_by, breaker::text as "breaker!", reason, opened_at, open_until, openings, probes,
  probe_until, changed_at
from provider_states
