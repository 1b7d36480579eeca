-- Writes the two events of a message as a whole: that it was accepted, unless intake wrote it, and that it is complete.
-- Returns the messages whose completion was not written before. Sorted, so that two writers cannot deadlock.
-- $1 shard[], $2 message_id[], $3 created_at[], $4 message status[], $5 now.
with done as (
  select * from unnest($1::smallint[], $2::bigint[], $3::timestamptz[], $4::text[])
    as d(shard, message_id, created_at, status)
  order by shard, message_id
),
accepted as (
  insert into events (shard, message_id, no, seq, attempt, event, occurred_at)
  select shard, message_id, 0, 1, 0, 'message.accepted', created_at from done
  on conflict do nothing
)
insert into events (shard, message_id, no, seq, attempt, event, reason, occurred_at)
select shard, message_id, 0, 2, 0, 'message.completed', status, $5 from done
on conflict do nothing
returning shard, message_id
