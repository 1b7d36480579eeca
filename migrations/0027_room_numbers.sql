-- A message updates no row: its number follows those of the room's last message and last other event, under the lock of
-- the room's head. A row that every message updates grows a chain of versions while an old snapshot is held, and every
-- writer walks it. Processes of the version before move the head alone: beside these they refuse messages, and lose none.

comment on column room_heads.seq is 'At least the number of the last event that is not a message.';
comment on column room_heads.no is 'At least the number of the last message that retention deleted; so are last_*.';

-- Heads with the numbers of the last message.
create view current_room_heads as
select h.shard, h.room_id, greatest(h.seq, c.seq) as seq, greatest(h.no, c.no) as no,
  greatest(h.last_seq, c.seq) as last_seq, greatest(h.last_id, c.chat_id) as last_id,
  case when c.seq >= h.last_seq then c.sender_id else h.last_sender_id end as last_sender_id, h.members,
  h.most_members, h.is_open, h.is_individual, h.admins_write, h.slow_mode_s
from room_heads h
left join lateral (
  select m.seq, m.no, m.chat_id, m.sender_id
  from chat_messages m
  where m.shard = h.shard and m.room_id = h.room_id
  order by m.seq desc
  limit 1
) c on true;

-- Locks the heads of rooms in the order in which they are given, and returns them as they are then: after the locks a new
-- snapshot shows what their holders before have committed. A lock makes no version of a row. A room that there is not has
-- no row.
create function lock_room_heads(shards smallint[], room_ids bigint[])
returns setof current_room_heads
language plpgsql
as $$
begin
  -- Each is looked for as the first of a range of one key: while the table grows from nothing, equality may be planned
  -- as a search through all heads.
  perform from unnest($1, $2) as r(shard, room_id)
    cross join lateral (
      select
      from room_heads h
      where h.shard = r.shard and h.room_id between r.room_id and r.room_id
      order by h.room_id
      limit 1
      for no key update
    ) h;
  return query
    select h.*
    from unnest($1, $2) as r(shard, room_id)
    cross join lateral (
      select *
      from current_room_heads h
      where h.shard = r.shard and h.room_id between r.room_id and r.room_id
      order by h.room_id
      limit 1
    ) h;
end $$;
