-- Refused requests of partners, newest first.
-- $1 partner_id[], $2 request_id below this, $3 refused_at from this on, $4 refused_at before this, $5 rows at most.
select request_id, partner_id, client_msg_id, enqueued_at, refused_at, code, reason, detail,
  errors as "errors: Json<Vec<RequestFault>>"
from notihub.refusals
where partner_id = any($1) and request_id < $2 and refused_at >= $3 and refused_at < $4
order by request_id desc limit $5
