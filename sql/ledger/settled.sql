-- The statistics of a day, by the partners' time zones, without webhooks.
-- $1 partner_id[], $2 the day, $3 message type of webhooks, $4 the message type of each lane, from lane 0 on[].
select partner_id as "partner_id!", sum(total)::bigint as "total!", sum(success)::bigint as "success!",
  sum(failed)::bigint as "failed!"
from (
  select partner_id, message_type, total, success, failed
  from partner_daily_stats
  where stat_date = $2 and partner_id = any($1::bigint[])
  union all
  select d.partner_id, ($4::text[])[d.lane + 1], d.total, d.success, d.failed
  from stat_deltas d
  join partners p using (partner_id)
  where d.partner_id = any($1::bigint[]) and (d.counted_at at time zone p.time_zone)::date = $2
) s
where message_type <> $3
group by partner_id
