-- Creates a lock's row if there is none. Runs in a transaction of its own: otherwise another process would wait for the
-- uncommitted row.
-- $1 lock name, $2 partner_id (0: the whole hub).
insert into hub_locks (name, partner_id)
select $1, $2 where not exists (select from hub_locks where name = $1 and partner_id = $2)
on conflict (name, partner_id) do nothing
