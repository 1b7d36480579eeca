-- Whether it is this process's turn, until its transaction ends; others pass it over. $1 the lock's name, $2 partner_id, 0
-- for the whole hub.
with held as (
  select name from hub_locks where name = $1 and partner_id = $2 for update skip locked
),
-- Waits only for another process that makes the same row at this moment, and then finds it made.
made as (
  insert into hub_locks (name, partner_id)
  select $1, $2 where not exists (select from hub_locks where name = $1 and partner_id = $2)
  on conflict (name, partner_id) do nothing
  returning name
)
select exists (select from held) or exists (select from made) as "mine!"
