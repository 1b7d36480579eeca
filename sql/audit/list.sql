-- Entries of the audit log, newest first. Only one of the four branches runs: the one along the index of the first
-- filter given. Without the branches a filter that few entries pass would read the whole log.
-- $1 audit_id below this, $2 audit_id from this on, $3 partner_id, $4 actor, $5 action (each of the three may be null:
-- not filtered), $6 rows at most.
select audit_id as "audit_id!", at as "at!", actor as "actor!", role as "role!", action as "action!", object,
  partner_id, address, request_id, before, after
from (
  (select * from audit
  where $3::bigint is not null and (partner_id, audit_id) < ($3, $1) and (partner_id, audit_id) >= ($3, $2)
    and audit_id < $1 and audit_id >= $2
    and ($4::text is null or actor = $4) and ($5::text is null or action = $5)
  order by partner_id desc, audit_id desc limit $6)
  union all
  (select * from audit
  where $3::bigint is null and $4::text is not null and (actor, audit_id) < ($4, $1) and (actor, audit_id) >= ($4, $2)
    and audit_id < $1 and audit_id >= $2 and ($5::text is null or action = $5)
  order by actor desc, audit_id desc limit $6)
  union all
  (select * from audit
  where $3::bigint is null and $4::text is null and $5::text is not null
    and (action, audit_id) < ($5, $1) and (action, audit_id) >= ($5, $2) and audit_id < $1 and audit_id >= $2
  order by action desc, audit_id desc limit $6)
  union all
  (select * from audit
  where $3::bigint is null and $4::text is null and $5::text is null and audit_id < $1 and audit_id >= $2
  order by audit_id desc limit $6)
) found
order by audit_id desc
limit $6
