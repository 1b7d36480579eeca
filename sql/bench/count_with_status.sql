-- Number of deliveries with a status.
-- $1 status.
select count(*) as "n!" from deliveries where status = ($1::text)::delivery_status
