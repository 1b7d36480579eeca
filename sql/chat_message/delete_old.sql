-- Deletes a room's oldest messages: those before the first one that is young. The gate keeps the numbers of the last
-- one: they are not given again. Senders keep that they have read up to their own. The caller holds the lock of the
-- gate.
-- $1 shard, $2 room_id, $3 chat_id below this, $4 rows at most.
with gone as (
  delete from chat_messages
  where shard = $1 and room_id = $2 and seq in (
    select seq
    from (
      -- Ids are given before numbers, and nearly in their order.
      select seq, max(chat_id) over (order by seq) as newest
      from (select seq, chat_id from chat_messages where shard = $1 and room_id = $2 order by seq limit $4) oldest
    ) dated
    where newest < $3)
  returning seq, no, chat_id, sender_id
),
last as (
  select * from gone order by seq desc limit 1
),
kept as (
  update room_gates g
  set seq = greatest(g.seq, l.seq), no = l.no, last_seq = l.seq, last_id = greatest(g.last_id, l.chat_id)
  from last l
  where g.shard = $1 and g.room_id = $2 and g.last_seq < l.seq
),
marked as (
  update members m set read_no = greatest(m.read_no, s.no), delivered_no = greatest(m.delivered_no, s.no)
  from (select sender_id, max(no) as no from gone group by sender_id) s
  where m.shard = $1 and m.room_id = $2 and m.user_id = s.sender_id and m.read_no < s.no
)
select count(*) as "n!" from gone
