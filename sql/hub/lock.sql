-- One process at a time does this, until its transaction ends; others wait. The first to come makes the lock's row.
-- $1 the lock's name, $2 partner_id, 0 for the whole hub.
insert into hub_locks (name, partner_id) values ($1, $2)
on conflict (name, partner_id) do update set name = excluded.name
