-- Leases the polling of a provider's list to one process. Returns the cursor, or no row if another process holds the
-- lease.
-- $1 provider, $2 now, $3 lease_until.
insert into provider_cursors as c (provider, lease_until)
values ($1, $3)
on conflict (provider) do update set lease_until = $3
where c.lease_until is null or c.lease_until <= $2
returning cursor
