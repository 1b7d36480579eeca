-- Who has read a message, and when: at the first mark at or above its number, while marks are kept, or with the first
-- own message since.
-- $1 shard, $2 room_id, $3 the message's no, $4 its sender.
select m.user_id as "user_id!", least(
  (
    select k.read_at
    from read_marks k
    where k.shard = $1 and k.room_id = $2 and k.user_id = m.user_id and k.up_to_no >= $3
    order by k.up_to_no
    limit 1),
  (
    select timestamptz '2020-01-01 00:00:00Z' + (c.chat_id >> 22) * interval '1 millisecond'
    from chat_messages c
    where c.shard = $1 and c.room_id = $2 and c.sender_id = m.user_id and c.no >= $3
    order by c.no
    limit 1)) as read_at
from current_members m
where m.shard = $1 and m.room_id = $2 and m.left_at is null and m.read_no >= $3 and m.from_no < $3 and m.user_id <> $4
order by m.user_id
