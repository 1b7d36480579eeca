-- How messages ended: their deliveries, webhooks left out; null where a message has none. Messages that are not there
-- are left out. The condition on created_at always holds; with it the planner reads the primary key of messages,
-- because no other index has all columns that are needed.
-- $1 shards that have rows[], $2 message_id[], $3 lanes of webhooks[].
select m.message_id as "message_id!", d.deliveries
from (
  select message_id
  from messages
  where shard = any($1::smallint[]) and message_id = any($2::bigint[]) and created_at > '-infinity'
) m
left join (
  select message_id,
    string_agg(concat_ws(':', coalesce(chain, 0), status, (attempt > 0)::int), ' ' order by no) as deliveries
  from deliveries
  where shard = any($1::smallint[]) and message_id = any($2::bigint[]) and lane <> all($3::smallint[])
  group by message_id
) d using (message_id)
