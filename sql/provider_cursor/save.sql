-- Saves how far a provider's list was read, unless another process read on meanwhile.
-- $1 provider, $2 cursor as it was, $3 new cursor, $4 now if the list's end was reached (else null), $5 time of the
-- next poll.
update provider_cursors set cursor = $3, polled_at = coalesce($4, polled_at), lease_until = $5
where provider = $1 and cursor is not distinct from $2
