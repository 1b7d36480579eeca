-- The months of which the audit log's default partition has entries: of time for which no month had been made. The time of an
-- id is as src/id.rs has it. $1 and $2 the first and last id that a month can be made for.
select distinct date_trunc('month',
  timestamp '1970-01-01' + ((audit_id >> 22) + 1577836800000) * interval '1 millisecond')::date as "month!"
from audit_default
where audit_id between $1 and $2
order by 1
