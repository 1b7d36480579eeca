-- Share of all deliveries that are in overflow lanes, 0 to 1.
select coalesce(avg((lane % 2)::int), 0)::float8 as "part!" from deliveries
