-- Whether anything is left of a person, in every table that could hold it. $1 the person's address in every form, as
-- regular expressions[], $2 only at this partner (null: everywhere).
select 'messages' as "table!", count(*) as "rows!" from messages
where ($2::bigint is null or partner_id = $2)
  and (detail::text ~* any($1) or client_msg_id ~* any($1) or kind ~* any($1))
union all
select 'deliveries', count(*) from deliveries
where ($2::bigint is null or partner_id = $2)
  and (recipient ~* any($1) or written ~* any($1) or reason ~* any($1) or provider ~* any($1))
union all
select 'attempts', count(*) from attempts a
where (a.detail ~* any($1) or a.code ~* any($1) or a.provider_ref ~* any($1) or a.reason ~* any($1)
    or a.receipt_code ~* any($1) or a.receipt_reason ~* any($1))
  and ($2::bigint is null or exists (
    select from deliveries d where d.shard = a.shard and d.message_id = a.message_id and d.no = a.no and d.partner_id = $2))
union all
select 'receipts', count(*) from receipts r
where (r.detail ~* any($1) or r.code ~* any($1) or r.provider_ref ~* any($1) or r.event_key ~* any($1))
  and ($2::bigint is null or exists (
    select from deliveries d where d.shard = r.shard and d.message_id = r.message_id and d.no = r.no and d.partner_id = $2))
union all
select 'ids of providers', count(*) from provider_refs p
where p.provider_ref ~* any($1)
  and ($2::bigint is null or exists (
    select from deliveries d where d.shard = p.shard and d.message_id = p.message_id and d.no = p.no and d.partner_id = $2))
union all
select 'events', count(*) from events where $2::bigint is null and (reason ~* any($1) or event ~* any($1))
union all
select 'idempotency', count(*) from idempotency
where ($2::bigint is null or partner_id = $2) and client_msg_id ~* any($1)
union all
select 'requests enqueued in SQL', count(*) from notihub.requests
where ($2::bigint is null or partner_id = $2) and body ~* any($1)
union all
select 'refused requests', count(*) from notihub.refusals
where ($2::bigint is null or partner_id = $2)
  and (body ~* any($1) or client_msg_id ~* any($1) or detail ~* any($1) or errors::text ~* any($1))
union all
select 'endpoints', count(*) from endpoints
where ($2::bigint is null or partner_id = $2)
  and (contact_email ~* any($1) or description ~* any($1) or url ~* any($1))
union all
select 'audit', count(*) from audit
where ($2::bigint is null or partner_id = $2)
  and (object ~* any($1) or before::text ~* any($1) or after::text ~* any($1) or actor ~* any($1))
