-- State of every provider that was ever paused or failed.
select provider, paused_at, paused_by, breaker::text as "breaker!", reason, opened_at, open_until, openings, probes,
  probe_until, changed_at
from provider_states
