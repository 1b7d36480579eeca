-- Creates the missing partitions of a week and returns their names.
-- $1 the week's Monday, $2 the week's first id, $3 the next week's first id.
select make_week($1, $2, $3) as "made!"
