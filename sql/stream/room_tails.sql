-- Events of rooms' streams after a number, each with its message as it is now, and the number of the stream's last
-- event. A stream without new events has one row without an event.
-- One each per stream: $1 shard[], $2 room_id[], $3 after this seq[]. For all: $4 events at most of a stream, $5 event
-- of a new message.
select p.shard as "stream_shard!", p.room_id as "stream_id!", coalesce(h.seq, 0) as "head!", t.seq as "event_seq?",
  t.event as "event?", t.actor as "actor?", t.about as "about?", t.detail as "detail?", c.seq as "seq?", c.no as "no?",
  c.chat_id as "chat_id?", c.sender_id as "sender_id?", c.temp_id as "temp_id?", c.kind as "kind?",
  c.content as "content?", c.version as "version?", c.edited_at as "edited_at?", c.deleted_at as "deleted_at?",
  t.event_id as "event_id?"
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as p(shard, room_id, after)
left join room_heads h on h.shard = p.shard and h.room_id = p.room_id
left join lateral (
  select *
  from (
    (select c.seq, $5::text as event, c.sender_id as actor, c.seq as about, null::jsonb as detail, c.chat_id as event_id
      from chat_messages c
      where c.shard = p.shard and c.room_id = p.room_id and c.seq > p.after
      order by c.seq
      limit $4)
    union all
    (select e.seq, e.event, e.actor, e.about, e.detail, e.event_id
      from stream_events e
      where e.shard = p.shard and e.stream_id = p.room_id and e.seq > p.after
      order by e.seq
      limit $4)
  ) both_kinds
  order by seq
  limit $4
) t on true
left join chat_messages c on c.shard = p.shard and c.room_id = p.room_id and c.seq = t.about
  and t.event like 'MESSAGE\_%'
order by p.shard, p.room_id, t.seq
