-- One process at a time makes keys, until its transaction ends. $1 the lock's number.
select pg_advisory_xact_lock($1)
