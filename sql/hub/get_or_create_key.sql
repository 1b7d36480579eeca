-- Returns a key of this installation; stores the given one if there is none. A concurrent caller waits for the first
-- one and gets its key: hence an update that changes nothing.
-- $1 name, $2 32 random bytes.
insert into hub_keys (name, key) values ($1, $2)
on conflict (name) do update set key = hub_keys.key
returning key
