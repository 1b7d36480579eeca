-- Months of entries in the audit log's default partition, for which no partition existed. The time is taken from the
-- id, as `src/id.rs` encodes it.
-- $1 and $2 the first and last id for which a month can be created.
select distinct date_trunc('month',
  timestamp '1970-01-01' + ((audit_id >> 22) + 1577836800000) * interval '1 millisecond')::date as "month!"
from audit_default
where audit_id between $1 and $2
order by 1
