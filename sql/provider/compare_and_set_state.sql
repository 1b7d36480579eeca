-- Replaces a provider's state if it is still the one that was read; inserts it if there is none.
-- $1 provider, $2 paused_at, $3 paused_by, $4 breaker, $5 reason, $6 opened_at, $7 open_until, $8 openings, $9 probes,
-- $10 probe_until, $11 changed_at, $12 changed_at of the state that was read.
insert into provider_states as s (provider, paused_at, paused_by, breaker, reason, opened_at, open_until, openings,
  probes, probe_until, changed_at)
values ($1, $2, $3, $4::text::breaker_status, $5, $6, $7, $8, $9, $10, $11)
on conflict (provider) do update set paused_at = excluded.paused_at, paused_by = excluded.paused_by,
  breaker = excluded.breaker, reason = excluded.reason, opened_at = excluded.opened_at,
  open_until = excluded.open_until, openings = excluded.openings, probes = excluded.probes,
  probe_until = excluded.probe_until,
  changed_at = excluded.changed_at
where s.changed_at = $12
