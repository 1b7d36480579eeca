-- The months of which the audit log's default partition has entries: of time for which no month had been made.
select distinct audit_month_of(audit_id) as "month!" from audit_default
where audit_id between 0 and audit_first_id('2089-01-01') - 1
order by 1
