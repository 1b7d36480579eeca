-- One process at a time erases a partner's old content; the others pass it over. Until the transaction ends.
-- $1 the lock's kind, $2 partner_id.
select pg_try_advisory_xact_lock($1, hashint8($2)) as "mine!"
