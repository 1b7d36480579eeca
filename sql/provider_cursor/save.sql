-- Where the reading of a provider's list stands, if nobody read on meanwhile. $1 provider, $2 as it stood, $3 as it stands,
-- $4 now, if that is the list's end, $5 when somebody may read on.
update provider_cursors set cursor = $3, polled_at = coalesce($4, polled_at), lease_until = $5
where provider = $1 and cursor is not distinct from $2
