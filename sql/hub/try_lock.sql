-- Takes a lock until the transaction ends, without waiting. False if another process has it.
-- $1 lock name, $2 partner_id (0: the whole hub).
with held as (
  select name from hub_locks where name = $1 and partner_id = $2 for update skip locked
)
select exists (select from held) as "acquired!"
