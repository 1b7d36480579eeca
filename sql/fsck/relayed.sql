-- A request enqueued in SQL becomes a message or a refusal within five minutes.
select 0::bigint as "message_id!", 0::smallint as "no!",
  format('request %s of partner %s waits since %s', request_id, partner_id, enqueued_at) as "found!"
from notihub.requests
where enqueued_at < clock_timestamp() - interval '5 minutes'
