-- A message updates no row: its number follows those of the room's last message and last other event, under the lock of
-- the room's gate, and its sender has read the room up to it without a mark. A row that every message updates grows a
-- chain of versions while an old snapshot is held, and every writer walks it.
--
-- The heads become a view. Processes of the version before read it; they refuse what changes a room, and messages,
-- until they are replaced, because a view cannot be written.

-- What a message is judged by, and the row that those who write in a room wait for.
alter table room_heads rename to room_gates;
alter table room_gates rename constraint pk_room_heads to pk_room_gates;
alter table room_gates rename constraint ck_room_head_members to ck_room_gate_members;
alter table room_gates rename constraint ck_room_head_numbers to ck_room_gate_numbers;
comment on column room_gates.seq is 'At least the number of the last event that is not a message.';
comment on column room_gates.no is 'At least the number of the last message that retention deleted; so are last_*.';
comment on column room_gates.last_sender_id is 'Not used any more.';

-- The heads of rooms' streams: the numbers of the last event and the last message. The last sender is for processes of
-- the version before.
create view room_heads as
select g.shard, g.room_id, greatest(g.seq, c.seq) as seq, greatest(g.no, c.no) as no,
  greatest(g.last_seq, c.seq) as last_seq, greatest(g.last_id, c.chat_id) as last_id,
  coalesce(c.sender_id, g.last_sender_id) as last_sender_id, g.members, g.most_members, g.is_open, g.is_individual,
  g.admins_write, g.slow_mode_s
from room_gates g
left join lateral (
  select m.seq, m.no, m.chat_id, m.sender_id
  from chat_messages m
  where m.shard = g.shard and m.room_id = g.room_id
  order by m.seq desc
  limit 1
) c on true;

-- The last message of each sender in a room. The sender leads: a search by room alone is then not planned by it.
create index idx_chat_message_sender on chat_messages (sender_id, room_id, no, shard);

-- Members with how far they have read: up to their last mark, or to their own last message. An id begins with its time.
create view current_members as
select m.shard, m.room_id, m.user_id, m.role, m.joined_at, m.from_no, greatest(m.read_no, c.no) as read_no,
  greatest(m.delivered_no, c.no) as delivered_no,
  case
    when c.no > m.read_no then timestamptz '2020-01-01 00:00:00Z' + (c.chat_id >> 22) * interval '1 millisecond'
    else m.read_at
  end as read_at, m.hidden_no, m.left_at, m.left_seq, m.banned_at, m.notify, m.muted_until, m.silenced_until
from members m
left join lateral (
  select c.no, c.chat_id
  from chat_messages c
  where c.room_id = m.room_id and c.sender_id = m.user_id and c.shard = m.shard
  order by c.no desc
  limit 1
) c on true;

create or replace view chat_message_read_by_user as
select k.room_id as channel_id, c.seq as message_seq, k.user_id, min(k.read_at) as read_at
from (
  select shard, room_id, user_id, up_to_no, read_at from read_marks
  union all
  select shard, room_id, sender_id, no, timestamptz '2020-01-01 00:00:00Z' + (chat_id >> 22) * interval '1 millisecond'
  from chat_messages
) k
join chat_messages c on c.shard = k.shard and c.room_id = k.room_id and c.no <= k.up_to_no and c.sender_id <> k.user_id
group by k.room_id, c.seq, k.user_id;

-- Locks the gates of rooms in the order in which they are given, and returns the rooms' heads as they are then: after
-- the locks a new snapshot shows what their holders before have committed. A lock makes no version of a row. A room
-- that there is not has no row.
create function lock_room_gates(shards smallint[], room_ids bigint[])
returns setof room_heads
language plpgsql
as $$
begin
  -- Each is looked for as the first of a range of one key: while the table grows from nothing, equality may be planned
  -- as a search through all gates.
  perform from unnest($1, $2) as r(shard, room_id)
    cross join lateral (
      select
      from room_gates g
      where g.shard = r.shard and g.room_id between r.room_id and r.room_id
      order by g.room_id
      limit 1
      for no key update
    ) g;
  return query
    select h.*
    from unnest($1, $2) as r(shard, room_id)
    cross join lateral (
      select *
      from room_heads h
      where h.shard = r.shard and h.room_id between r.room_id and r.room_id
      order by h.room_id
      limit 1
    ) h;
end $$;
revoke all on function lock_room_gates(smallint[], bigint[]) from public;
-- `migrate` repairs rights afterwards.
do $$
begin
  if exists (select from pg_roles where rolname = 'notihub_app') then
    grant execute on function lock_room_gates(smallint[], bigint[]) to notihub_app;
  end if;
end $$;
