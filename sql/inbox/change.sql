-- Changes one item of a user, if that changes anything: locks the head of the user's stream, changes the item, takes
-- the next number and records it. Returns the number; no row if nothing changed.
-- $1 shard, $2 user_id, $3 message_id, $4 no, $5 change (READ, UNREAD, ARCHIVE, UNARCHIVE, SNOOZE), $6 until when it is
-- snoozed, $7 now, $8 event_id, $9 event.
with head as materialized (
  select shard, user_id from user_heads where shard = $1 and user_id = $2 for no key update
),
changed as (
  update inbox_items i
  set read_at = case $5::text when 'READ' then $7::timestamptz when 'UNREAD' then null else i.read_at end,
    archived_at = case $5::text when 'ARCHIVE' then $7::timestamptz when 'UNARCHIVE' then null
      else i.archived_at end,
    snoozed_until = case $5::text when 'SNOOZE' then $6::timestamptz else i.snoozed_until end
  from head h
  where i.shard = $1 and i.message_id = $3 and i.no = $4 and i.user_id = h.user_id
    and case $5::text
      when 'READ' then i.read_at is null
      when 'UNREAD' then i.read_at is not null
      when 'ARCHIVE' then i.archived_at is null
      when 'UNARCHIVE' then i.archived_at is not null
      else i.snoozed_until is distinct from $6::timestamptz
    end
  returning i.shard, i.user_id, i.message_id, i.no
),
numbered as (
  update user_heads h set seq = h.seq + 1 from changed c
  where h.shard = c.shard and h.user_id = c.user_id
  returning h.shard, h.user_id, h.seq, c.message_id, c.no
)
insert into stream_events (shard, stream_id, seq, event_id, event, about, about_no)
select shard, user_id, seq, $8, $9, message_id, no from numbered
returning seq
