-- Events of users' streams after a number, each with its item as it is now, and the number of the stream's last event.
-- A stream without new events has one row without an event.
-- One each per stream: $1 shard[], $2 user_id[], $3 after this seq[]. For all: $4 events at most of a stream, $5 event
-- of an arrival.
select p.shard as "shard!", p.user_id as "user_id!", coalesce(h.seq, 0) as "head!", t.seq as "seq?",
  t.event as "event?",
  t.detail as "detail?", t.about as "about?", i.message_id as "message_id?", i.no as "no?", i.content as "content?",
  i.seq as "item_seq?",
  i.arrived_at as "arrived_at?", i.read_at as "read_at?", i.archived_at as "archived_at?",
  i.snoozed_until as "snoozed_until?", i.expires_at as "expires_at?", i.seq <= h.seen_seq as "is_seen?"
from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as p(shard, user_id, after)
left join user_heads h on h.shard = p.shard and h.user_id = p.user_id
left join lateral (
  select *
  from (
    (select i.seq, $5::text as event, null::jsonb as detail, i.message_id as about, i.no as about_no
      from inbox_items i
      where i.shard = p.shard and i.user_id = p.user_id and i.seq > p.after
      order by i.seq
      limit $4)
    union all
    (select e.seq, e.event, e.detail, e.about, e.about_no
      from stream_events e
      where e.shard = p.shard and e.stream_id = p.user_id and e.seq > p.after
      order by e.seq
      limit $4)
  ) both_kinds
  order by seq
  limit $4
) t on true
-- By its key alone: with the user, too, the planner may read all items of the user.
left join inbox_items i on i.shard = p.shard and i.message_id = t.about and i.no = t.about_no
order by p.shard, p.user_id, t.seq
