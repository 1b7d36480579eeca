-- Endpoints of one or several partners, newest first, without deleted ones.
-- $1 partner_id[], $2 its shard[], $3 endpoint_id below this, $4 endpoint_id from this on, $5 rows at most.
select e.shard, e.partner_id, e.endpoint_id, e.url, e.description, e.events, e.status::text as "status!",
  e.disabled_reason, e.ordered, e.include_content, e.contact_email, e.headers, e.secret, e.former_secret,
  e.former_until, e.failing_since, e.last_success_at, e.last_failure_at, e.resumed_at, e.created_at, e.updated_at
from unnest($1::bigint[], $2::smallint[]) as p(partner_id, shard)
join endpoints e on e.shard = p.shard and e.partner_id = p.partner_id
where e.endpoint_id < $3 and e.endpoint_id >= $4 and e.status <> 'DELETED'
order by e.endpoint_id desc
limit $5
