-- The date in a time zone.
-- $1 now, $2 time zone.
select ($1::timestamptz at time zone $2)::date as "today!"
