-- Records how much of each day's statistics belongs to deliveries that are about to be dropped, so that the rest of the
-- day can still be recounted.
-- $1 message_id from this on, $2 message_id below this, $3 the message type of each lane, from lane 0 on[]; counts of a
-- delivery by status: $4 status[], $5 total[], $6 success[], $7 failed[].
insert into partner_daily_stats as s (partner_id, stat_date, message_type, total, success, failed, gone_total,
  gone_success, gone_failed)
select d.partner_id, (d.settled_at at time zone p.time_zone)::date, ($3::text[])[d.lane + 1], 0, 0, 0, sum(c.total),
  sum(c.success), sum(c.failed)
from deliveries d
join unnest($4::text[]::delivery_status[], $5::smallint[], $6::smallint[], $7::smallint[])
  as c(status, total, success, failed) on c.status = d.status
join partners p on p.partner_id = d.partner_id
where d.message_id >= $1 and d.message_id < $2 and c.total <> 0
group by 1, 2, 3
order by 1, 2, 3
on conflict on constraint uk_stat_partner_date_type do update
set gone_total = s.gone_total + excluded.gone_total, gone_success = s.gone_success + excluded.gone_success,
  gone_failed = s.gone_failed + excluded.gone_failed
