-- Moves statistics changes into their days in one statement, so that a reader never sees a change twice. Changes locked
-- by another process are skipped. Days are written in the order of their key, so that two processes cannot deadlock.
-- $1 rows at most, $2 the message type of each lane, from lane 0 on[], $3 block of the table to begin at.
with taken as (
  delete from stat_deltas
  where ctid = any(array(
    select ctid from stat_deltas where ctid >= format('(%s,0)', $3::bigint)::tid limit $1 for update skip locked))
  returning partner_id, counted_at, lane, total, success, failed, (ctid::text::point)[0]::bigint as block
),
added as (
  insert into partner_daily_stats as s (partner_id, stat_date, message_type, total, success, failed)
  select t.partner_id, (t.counted_at at time zone p.time_zone)::date, ($2::text[])[t.lane + 1], sum(t.total),
    sum(t.success), sum(t.failed)
  from taken t
  join partners p on p.partner_id = t.partner_id
  group by 1, 2, 3
  order by 1, 2, 3
  on conflict on constraint uk_stat_partner_date_type do update
  set total = s.total + excluded.total, success = s.success + excluded.success, failed = s.failed + excluded.failed
)
select count(*) as "taken!", max(block) as last_block from taken
