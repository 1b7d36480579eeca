-- A page of a user's inbox, the newest arrivals first.
-- $1 shard, $2 user_id, $3 filter (ALL, UNREAD, ARCHIVED, SNOOZED), $4 type (null: all), $5 seq below this, $6 now,
-- $7 rows at most.
select i.message_id, i.no, i.content, i.seq, i.arrived_at, i.read_at, i.archived_at, i.snoozed_until, i.expires_at,
  i.seq <= h.seen_seq as "is_seen!"
from inbox_items i
join user_heads h on h.shard = $1 and h.user_id = $2
where i.shard = $1 and i.user_id = $2 and i.seq < $5
  and case $3::text
    when 'ARCHIVED' then i.archived_at is not null
    when 'SNOOZED' then i.archived_at is null and i.snoozed_until is not null
    else i.archived_at is null and i.snoozed_until is null and (i.expires_at is null or i.expires_at > $6)
      and ($3::text = 'ALL' or i.read_at is null)
  end
  and ($4::text is null or exists (
    select from messages m where m.shard = $1 and m.message_id = i.message_id and m.kind = $4))
order by i.seq desc
limit $7
