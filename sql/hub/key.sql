-- A key this installation made for itself; the first process to need it decides, and one that came at the same moment
-- waits for it: hence an update that changes nothing. $1 name, $2 32 random bytes.
insert into hub_keys (name, key) values ($1, $2)
on conflict (name) do update set key = hub_keys.key
returning key
