-- Which part of all deliveries is in overflow lanes.
select coalesce(avg((lane % 2)::int), 0)::float8 as "part!" from deliveries
