-- A key this installation made for itself; the first process to need it decides. $1 name, $2 32 random bytes.
with made as (
  insert into hub_keys (name, key) values ($1, $2) on conflict do nothing returning key
)
select key as "key!" from made union all select key from hub_keys where name = $1 limit 1
