-- Makes the lock's row if there is none. In a transaction of its own: nobody must wait for a row that is being made.
-- $1 the lock's name, $2 partner_id, 0 for the whole hub.
insert into hub_locks (name, partner_id)
select $1, $2 where not exists (select from hub_locks where name = $1 and partner_id = $2)
on conflict (name, partner_id) do nothing
