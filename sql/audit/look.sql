-- An entry of the action 'look', unless this actor's looks since $8 have one of the same object. Two processes at the same
-- moment may add one each. $1 audit_id, $2 at, $3 actor, $4 role, $5 object, $6 address, $7 request_id, $8 the first id of
-- the time in which one look stands for all.
insert into audit (audit_id, at, actor, role, action, object, address, request_id)
select $1, $2, $3, $4, 'look', $5, $6, $7
where not exists (
  select from audit a where a.actor = $3 and a.audit_id >= $8 and a.action = 'look' and a.object = $5)
