-- Newest first. $1 ids below this, $2 ids from this on, $3 partner (null: all), $4 actor, $5 action: each may be null;
-- $6 rows.
select audit_id, at, actor, role, action, object, partner_id, address, request_id, before, after
from audit
where audit_id < $1 and audit_id >= $2 and ($3::bigint is null or partner_id = $3) and ($4::text is null or actor = $4)
  and ($5::text is null or action = $5)
order by audit_id desc
limit $6
