-- Creates the audit log's partition of a month, unless that time has one, and returns its name.
-- $1 the month's first day.
select make_audit_month($1) as "made!"
