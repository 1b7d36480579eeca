-- Takes a lock until the transaction ends, waiting for it. Creates the lock's row if there is none.
-- $1 lock name, $2 partner_id (0: the whole hub).
insert into hub_locks (name, partner_id) values ($1, $2)
on conflict (name, partner_id) do update set name = excluded.name
