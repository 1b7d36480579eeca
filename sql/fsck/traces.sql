-- Whether anything is left of a person, in every table that could hold it. $1 the person's address in every form, as
-- regular expressions[].
select 'messages' as "table!", count(*) as "rows!" from messages
where detail::text ~* any($1) or client_msg_id ~* any($1) or kind ~* any($1)
union all
select 'deliveries', count(*) from deliveries where recipient ~* any($1) or written ~* any($1) or reason ~* any($1) or provider ~* any($1)
union all
select 'attempts', count(*) from attempts
where detail ~* any($1) or code ~* any($1) or provider_ref ~* any($1) or reason ~* any($1)
union all
select 'events', count(*) from events where reason ~* any($1) or event ~* any($1)
union all
select 'idempotency', count(*) from idempotency where client_msg_id ~* any($1)
union all
select 'requests enqueued in SQL', count(*) from notihub.requests where body ~* any($1)
union all
select 'refused requests', count(*) from notihub.refusals
where body ~* any($1) or client_msg_id ~* any($1) or detail ~* any($1) or errors::text ~* any($1)
union all
select 'audit', count(*) from audit
where object ~* any($1) or before::text ~* any($1) or after::text ~* any($1) or actor ~* any($1)
