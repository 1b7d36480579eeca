-- Statistics of a partner by day and message type, newest first. Exact: rolled-up and not yet rolled-up changes are
-- read in one statement.
-- $1 partner_id, $2 its time zone, $3 first day, $4 last day, $5 message type (null: all), $6 the message type of each
-- lane, from lane 0 on[].
select stat_date as "stat_date!", message_type as "message_type!", sum(total)::bigint as "total!",
  sum(success)::bigint as "success!", sum(failed)::bigint as "failed!"
from (
  select stat_date, message_type, total, success, failed
  from partner_daily_stats
  where partner_id = $1 and stat_date between $3 and $4
  union all
  select (counted_at at time zone $2)::date, ($6::text[])[lane + 1], total, success, failed
  from stat_deltas
  where partner_id = $1
) as s
where stat_date between $3 and $4 and ($5::text is null or message_type = $5)
group by stat_date, message_type
having sum(total) <> 0
order by stat_date desc, message_type
