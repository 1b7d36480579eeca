-- Deletes a room's oldest messages. Ids grow with the numbers, so the oldest come first. The head keeps the numbers
-- of the last one: they are not given again. Senders keep that they have read up to their own. The caller holds the
-- lock of the head.
-- $1 shard, $2 room_id, $3 chat_id below this, $4 rows at most.
with gone as (
  delete from chat_messages
  where shard = $1 and room_id = $2 and seq in (
    select seq
    from (select seq, chat_id from chat_messages where shard = $1 and room_id = $2 order by seq limit $4) oldest
    where chat_id < $3)
  returning seq, no, chat_id, sender_id
),
last as (
  select * from gone order by seq desc limit 1
),
kept as (
  update room_heads h
  set seq = greatest(h.seq, l.seq), no = l.no, last_seq = l.seq, last_id = l.chat_id
  from last l
  where h.shard = $1 and h.room_id = $2 and h.last_seq < l.seq
),
marked as (
  update members m set read_no = greatest(m.read_no, s.no), delivered_no = greatest(m.delivered_no, s.no)
  from (select sender_id, max(no) as no from gone group by sender_id) s
  where m.shard = $1 and m.room_id = $2 and m.user_id = s.sender_id and m.read_no < s.no
)
select count(*) as "n!" from gone
