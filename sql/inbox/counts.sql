-- Counts of users' inboxes, each up to a limit, and the number of the last change.
-- One each per user: $1 shard[], $2 user_id[]. For all: $3 now, $4 counted up to this.
select p.shard as "shard!", p.user_id as "user_id!", coalesce(h.seq, 0) as "seq!", unread.n as "unread!",
  unseen.n as "unseen!"
from unnest($1::smallint[], $2::bigint[]) as p(shard, user_id)
left join user_heads h on h.shard = p.shard and h.user_id = p.user_id
cross join lateral (
  select count(*) as n
  from (
    select from inbox_items i
    where i.shard = p.shard and i.user_id = p.user_id and i.read_at is null and i.archived_at is null
      and i.snoozed_until is null and (i.expires_at is null or i.expires_at > $3::timestamptz)
    limit $4
  ) i
) unread
cross join lateral (
  select count(*) as n
  from (
    select from inbox_items i
    where i.shard = p.shard and i.user_id = p.user_id and i.seq > coalesce(h.seen_seq, 0) and i.archived_at is null
      and i.snoozed_until is null and (i.expires_at is null or i.expires_at > $3::timestamptz)
    limit $4
  ) i
) unseen
