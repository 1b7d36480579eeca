-- Drops the audit log's partitions that ended before a day; their names. $1 the day, at least 90 days ago.
select drop_audit_months($1) as "dropped!"
