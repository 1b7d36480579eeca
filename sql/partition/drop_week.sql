-- Drops the partitions of a week, which must have nothing open; their names. $1 the Monday.
select drop_week($1) as "dropped!"
