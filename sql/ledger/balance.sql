-- Messages of a slice by how they ended: each partner's, by whether there is a message, and by its deliveries. Messages
-- and deliveries are counted each from its own rows: a message without deliveries and deliveries without a message are
-- groups of their own. Webhooks are left out. The order makes the planner read the primary key of messages, whatever
-- the statistics: its other indexes do not bound a slice.
-- $1 shard, $2 message_id from this on, $3 message_id below this, $4 lanes of webhooks[].
select coalesce(m.partner_id, d.partner_id) as "partner_id!", m.message_id is not null as "is_accepted!", d.deliveries,
  count(*) as "messages!"
from (
  select message_id, partner_id
  from messages
  where shard = $1 and message_id >= $2 and message_id < $3 and about is null
  order by message_id
) m
full join (
  select message_id, partner_id,
    string_agg(concat_ws(':', coalesce(chain, 0), status, (attempt > 0)::int), ' ' order by no) as deliveries
  from deliveries
  where shard = $1 and message_id >= $2 and message_id < $3 and lane <> all($4::smallint[])
  group by message_id, partner_id
) d using (message_id, partner_id)
group by 1, 2, 3
