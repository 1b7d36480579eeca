-- Refused requests, the newest first. $1 partner_id[], $2 below this request_id, $3 refused from, $4 refused
-- before, $5 rows.
select request_id, partner_id, client_msg_id, enqueued_at, refused_at, code, reason, detail, errors as "errors: Json<Vec<Wrong>>"
from notihub.refusals
where partner_id = any($1) and request_id < $2 and refused_at >= $3 and refused_at < $4
order by request_id desc limit $5
