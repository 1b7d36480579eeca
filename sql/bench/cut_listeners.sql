-- Ends the sessions of this database whose last statement was LISTEN, as a fault. Returns how many there were.
select count(pg_terminate_backend(pid)) as "cut!" from pg_stat_activity
where datname = current_database() and query ilike 'listen%'
