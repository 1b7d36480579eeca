-- Deliveries per partner, day, lane and provider, counted as statistics are; a delivery that is not settled counts
-- nothing and has no day. Summed by quarter of an hour before the partners' time zones are looked up: midnight is at a
-- quarter everywhere.
-- $1 shard, $2 message_id from this on, $3 message_id below this.
select d.partner_id as "partner_id!", (d.quarter at time zone p.time_zone)::date as stat_date, d.lane as "lane!",
  d.provider, sum(d.n)::bigint as "deliveries!",
  sum(d.total)::bigint as "total!", sum(d.success)::bigint as "success!", sum(d.failed)::bigint as "failed!"
from (
  select partner_id, date_bin('15 minutes', settled_at, timestamptz '2000-01-01 00:00:00+00') as quarter, lane,
    provider, count(*) as n,
    count(*) filter (where status in ('SENT', 'DELIVERED', 'FAILED', 'EXPIRED', 'UNDETERMINED')) as total,
    count(*) filter (where status in ('SENT', 'DELIVERED')) as success,
    count(*) filter (where status in ('FAILED', 'EXPIRED')) as failed
  from deliveries
  where shard = $1 and message_id >= $2 and message_id < $3
  group by 1, 2, 3, 4
) d
join partners p using (partner_id)
group by 1, 2, 3, 4
