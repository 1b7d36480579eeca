-- Records that an actor looked at an object, unless the log has such an entry since $8. Two processes may add one each
-- if they run this at the same time.
-- $1 audit_id, $2 at, $3 actor, $4 role, $5 object, $6 address, $7 request_id, $8 the first audit_id of the period for
-- which one entry suffices.
insert into audit (audit_id, at, actor, role, action, object, address, request_id)
select $1, $2, $3, $4, 'look', $5, $6, $7
where not exists (
  select from audit a where a.actor = $3 and a.audit_id >= $8 and a.action = 'look' and a.object = $5)
