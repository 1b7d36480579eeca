-- Sets until when the receipt of each delivery is awaited.
-- $1 shard[], $2 message_id[], $3 no[], $4 receipt_due[] (null: no longer awaited).
update deliveries d set receipt_due = s.receipt_due
from unnest($1::smallint[], $2::bigint[], $3::smallint[], $4::timestamptz[]) as s(shard, message_id, no, receipt_due)
where d.shard = s.shard and d.message_id = s.message_id and d.no = s.no
