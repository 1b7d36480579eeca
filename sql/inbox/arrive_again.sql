-- Lets snoozed items arrive again whose time has come: unread and unseen, under the next numbers of their users'
-- streams. Where an item was numbered before, a row without content takes the number, so that the stream keeps no gap.
-- The caller has locked the heads: an item that another transaction changes meanwhile would leave its number unused.
-- One each per item: $1 shard[], $2 message_id[], $3 no[]. For all: $4 now, $5 event_id, $6 event.
with due as materialized (
  select i.shard, i.user_id, i.message_id, i.no, i.seq,
    row_number() over (partition by i.shard, i.user_id order by i.snoozed_until, i.seq) as nth,
    count(*) over (partition by i.shard, i.user_id) as n,
    dense_rank() over (order by i.shard, i.user_id) as head
  from unnest($1::smallint[], $2::bigint[], $3::smallint[]) as w(shard, message_id, no)
  join inbox_items i on i.shard = w.shard and i.message_id = w.message_id and i.no = w.no
  where i.snoozed_until <= $4::timestamptz
),
heads as (
  update user_heads h
  set seq = h.seq + d.n
  from (select distinct shard, user_id, n from due) d
  where h.shard = d.shard and h.user_id = d.user_id
  returning h.shard, h.user_id, h.seq
),
moved as (
  insert into stream_events (shard, stream_id, seq, event_id, event)
  select shard, user_id, seq, $5, $6 from due
)
update inbox_items i
set seq = (select array_agg(h.seq order by h.shard, h.user_id) from heads h)[d.head] - d.n + d.nth, arrived_at = $4,
  read_at = null, archived_at = null, snoozed_until = null
from due d
where i.shard = d.shard and i.message_id = d.message_id and i.no = d.no
returning i.shard, i.user_id, i.seq
