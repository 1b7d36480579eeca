-- Adds an entry to the audit log.
-- $1 audit_id, $2 at, $3 actor, $4 role, $5 action, $6 object, $7 partner_id, $8 address, $9 request_id, $10 before,
-- $11 after.
insert into audit (audit_id, at, actor, role, action, object, partner_id, address, request_id, before, after)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
