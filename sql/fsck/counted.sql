-- The statistics per partner, day and message type, less what retention has dropped.
-- $1 the message type of each lane, from lane 0 on[].
select partner_id as "partner_id!", stat_date as "stat_date!", message_type as "message_type!",
  sum(total)::bigint as "total!", sum(success)::bigint as "success!", sum(failed)::bigint as "failed!"
from (
  select partner_id, stat_date, message_type, total - gone_total as total, success - gone_success as success,
    failed - gone_failed as failed
  from partner_daily_stats
  where (total, success, failed) <> (gone_total, gone_success, gone_failed)
  union all
  select c.partner_id, (c.quarter at time zone p.time_zone)::date, ($1::text[])[c.lane + 1], c.total, c.success,
    c.failed
  from (
    select partner_id, date_bin('15 minutes', counted_at, timestamptz '2000-01-01 00:00:00+00') as quarter, lane,
      sum(total) as total, sum(success) as success, sum(failed) as failed
    from stat_deltas
    group by 1, 2, 3
  ) c
  join partners p using (partner_id)
) as s
group by 1, 2, 3
