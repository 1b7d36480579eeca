-- Drops partitions of the audit log that ended before a day, and returns their names.
-- $1 the day, at least 90 days ago.
select drop_audit_months($1) as "dropped!"
