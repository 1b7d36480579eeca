-- Makes the partitions of a week that are missing; their names. $1 the Monday, $2 the week's first id, $3 the next week's.
select make_week($1, $2, $3) as "made!"
