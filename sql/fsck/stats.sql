-- The statistics of these partners equal a recount per day and message type, less what retention has dropped.
-- (`message_id` is the partner's id here.) Both are read by one statement, because deliveries are settled meanwhile.
-- Both sides are summed by quarter of an hour before the partners' time zones are looked up: midnight is at a quarter
-- everywhere, and no hash table holds every row of a partner.
-- $1 the message type of each lane, from lane 0 on[], $2 partner_id[].
with counted as (
  select partner_id, stat_date, message_type, sum(total) as total, sum(success) as success, sum(failed) as failed
  from (
    select partner_id, stat_date, message_type, total - gone_total as total, success - gone_success as success,
      failed - gone_failed as failed
    from partner_daily_stats
    where partner_id = any($2::bigint[])
    union all
    select c.partner_id, (c.quarter at time zone p.time_zone)::date, ($1::text[])[c.lane + 1], c.total, c.success,
      c.failed
    from (
      select partner_id, date_bin('15 minutes', counted_at, timestamptz '2000-01-01 00:00:00+00') as quarter, lane,
        sum(total) as total, sum(success) as success, sum(failed) as failed
      from stat_deltas
      where partner_id = any($2::bigint[])
      group by 1, 2, 3
    ) c
    join partners p using (partner_id)
  ) as s
  group by 1, 2, 3
),
there as (
  select d.partner_id, (d.quarter at time zone p.time_zone)::date as stat_date,
    ($1::text[])[d.lane + 1] as message_type, sum(d.total) as total, sum(d.success) as success, sum(d.failed) as failed
  from (
    select partner_id, date_bin('15 minutes', settled_at, timestamptz '2000-01-01 00:00:00+00') as quarter, lane,
      count(*) as total, count(*) filter (where status in ('SENT', 'DELIVERED')) as success,
      count(*) filter (where status in ('FAILED', 'EXPIRED')) as failed
    from deliveries
    where partner_id = any($2::bigint[])
      and status::text in ('SENT', 'DELIVERED', 'FAILED', 'EXPIRED', 'UNDETERMINED')
    group by 1, 2, 3
  ) d
  join partners p using (partner_id)
  group by 1, 2, 3
)
select partner_id as "message_id!", 0::smallint as "no!",
  format('%s %s: counted %s, success %s, failed %s; there are %s, success %s, failed %s', stat_date, message_type,
    coalesce(c.total, 0), coalesce(c.success, 0), coalesce(c.failed, 0), coalesce(t.total, 0), coalesce(t.success, 0),
    coalesce(t.failed, 0)) as "found!"
from counted c
full join there t using (partner_id, stat_date, message_type)
where (coalesce(c.total, 0), coalesce(c.success, 0), coalesce(c.failed, 0))
  <> (coalesce(t.total, 0), coalesce(t.success, 0), coalesce(t.failed, 0))
