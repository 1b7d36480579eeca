-- Marks all items of a user as read that a list shows, of one type or of all, and records that under one number.
-- Returns the number; no row if none was unread.
-- $1 shard, $2 user_id, $3 type (null: all), $4 now, $5 event_id, $6 event, $7 detail.
with head as materialized (
  select shard, user_id from user_heads where shard = $1 and user_id = $2 for no key update
),
changed as (
  update inbox_items i
  set read_at = $4
  from head
  where i.shard = $1 and i.user_id = $2 and i.read_at is null and i.archived_at is null and i.snoozed_until is null
    and ($3::text is null or exists (
      select from messages m where m.shard = $1 and m.message_id = i.message_id and m.kind = $3))
  returning i.shard, i.user_id
),
numbered as (
  update user_heads h set seq = h.seq + 1 from (select distinct shard, user_id from changed) c
  where h.shard = c.shard and h.user_id = c.user_id
  returning h.shard, h.user_id, h.seq
)
insert into stream_events (shard, stream_id, seq, event_id, event, detail)
select shard, user_id, seq, $5, $6, $7 from numbered
returning seq
