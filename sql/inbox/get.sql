-- One item of a user.
-- $1 shard, $2 user_id, $3 message_id, $4 no.
select i.message_id, i.no, i.content, i.seq, i.arrived_at, i.read_at, i.archived_at, i.snoozed_until, i.expires_at,
  i.seq <= h.seen_seq as "is_seen!"
from inbox_items i
join user_heads h on h.shard = $1 and h.user_id = $2
where i.shard = $1 and i.message_id = $3 and i.no = $4 and i.user_id = h.user_id
