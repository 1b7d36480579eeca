-- Ends a period now that would last longer: the provider is called again.
-- $1 provider, $2 reason, $3 now.
update provider_holds set ended_at = greatest(began_at, $3) where provider = $1 and reason = $2 and ended_at > $3
