-- Moves requests that cannot become messages into the refusals, with their faults. The body is not kept for partners
-- with encrypted content.
-- $1 request_id[], $2 code[], $3 reason[], $4 detail[], $5 errors[] (JSON text), $6 now.
with gone as (
  delete from notihub.requests where request_id = any ($1) returning request_id, partner_id, body, enqueued_at
)
insert into notihub.refusals (request_id, partner_id, client_msg_id, body, enqueued_at, refused_at, code, reason,
  detail, errors)
select g.request_id, g.partner_id, left(g.body::jsonb ->> 'clientMsgId', 128),
  case when p.encrypt_content then '' else g.body end, g.enqueued_at, $6, w.code, w.reason,
  w.detail, w.errors::jsonb
from gone g
left join partners p using (partner_id)
join unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) as w(request_id, code, reason, detail, errors)
  on w.request_id = g.request_id
returning request_id, client_msg_id
