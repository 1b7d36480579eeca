-- A key this installation made for itself, if it has. $1 name.
select key from hub_keys where name = $1
