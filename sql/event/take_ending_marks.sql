-- Deletes and returns marks of messages of which a delivery ended. Marks locked by another process are skipped.
-- $1 rows at most, $2 block of the table to begin at.
delete from endings
where ctid = any(array(
  select ctid from endings where ctid >= format('(%s,0)', $2::bigint)::tid limit $1 for update skip locked))
returning shard, message_id, partner_id, (ctid::text::point)[0]::bigint as "block!"
