-- Makes the audit log's partition of a month, if its time has none; its name. $1 the month's first day.
select make_audit_month($1) as "made!"
