-- When a day begins in a time zone.
-- $1 the day, $2 time zone.
select ($1::date::timestamp at time zone $2) as "start!"
