-- Outages of these providers, oldest first.
-- $1 provider[], $2 ended_at after this, $3 began_at before this, $4 rows at most.
select provider, began_at, ended_at, reason, detail from provider_holds
where provider = any($1) and ended_at > $2 and began_at < $3
order by began_at, provider, reason
limit $4
