-- When and why these providers were not asked, oldest first. $1 providers, $2 from, $3 until, $4 rows.
select provider, began_at, ended_at, reason, detail from provider_holds
where provider = any($1) and ended_at > $2 and began_at < $3
order by began_at, provider, reason
limit $4
