-- Whether it is this process's turn, until its transaction ends; others pass it over. $1 the lock's name, $2 partner_id, 0
-- for the whole hub.
with held as (
  select name from hub_locks where name = $1 and partner_id = $2 for update skip locked
)
select exists (select from held) as "mine!"
