-- Drops the partitions of a week, which must have no unsettled delivery, and returns their names.
-- $1 the week's Monday.
select drop_week($1) as "dropped!"
