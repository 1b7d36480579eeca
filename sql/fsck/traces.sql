-- Whether anything is left of a person, in every table that could hold it. $1 the person's address in every form, as
-- patterns for `like`[].
select 'messages' as "table!", count(*) as "rows!" from messages
where detail::text ilike any($1) or client_msg_id ilike any($1) or kind ilike any($1)
union all
select 'deliveries', count(*) from deliveries where recipient ilike any($1) or reason ilike any($1) or provider ilike any($1)
union all
select 'attempts', count(*) from attempts
where detail ilike any($1) or code ilike any($1) or provider_ref ilike any($1) or reason ilike any($1)
union all
select 'events', count(*) from events where reason ilike any($1) or event ilike any($1)
union all
select 'idempotency', count(*) from idempotency where client_msg_id ilike any($1)
union all
select 'audit', count(*) from audit
where object ilike any($1) or before::text ilike any($1) or after::text ilike any($1) or actor ilike any($1)
