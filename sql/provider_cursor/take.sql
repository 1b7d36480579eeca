-- One process reads a provider's list: whoever takes its lease. Comes back with where to go on, if it is free.
-- $1 provider, $2 now, $3 lease until.
insert into provider_cursors as c (provider, lease_until)
values ($1, $3)
on conflict (provider) do update set lease_until = $3
where c.lease_until is null or c.lease_until <= $2
returning cursor
