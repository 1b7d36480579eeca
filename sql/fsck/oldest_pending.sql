-- Since when the oldest PENDING delivery is ready.
select min(ready_at) as ready_at from deliveries where status = 'PENDING'
