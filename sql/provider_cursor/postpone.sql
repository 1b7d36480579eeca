-- Postpones the next poll of a provider's list, after the list could not be read.
-- $1 provider, $2 lease_until.
update provider_cursors set lease_until = $2 where provider = $1
