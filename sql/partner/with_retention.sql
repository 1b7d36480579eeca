-- Partners whose content is erased before its partition is dropped, and how far that has come.
select partner_id, shard, retention_days as "retention_days!", erased_below
from partners
where retention_days is not null
