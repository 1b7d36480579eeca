-- Writes the two events of messages as a whole: that it was accepted, if that was not told when it was, and that it is
-- complete. Comes back with the messages whose completion nobody wrote before. Sorted, so that two writers never wait for
-- each other in a ring.
-- $1 shard[], $2 message_id[], $3 its created_at[], $4 overall status[], $5 now.
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
