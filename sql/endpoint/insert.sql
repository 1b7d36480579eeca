-- Inserts an endpoint.
-- $1 shard, $2 partner_id, $3 endpoint_id, $4 recipient (the id as deliveries name it), $5 url, $6 description, $7
-- events, $8 ordered, $9 include_content, $10 contact_email, $11 headers (sealed), $12 secret (sealed), $13 now.
insert into endpoints (shard, partner_id, endpoint_id, recipient, url, description, events, ordered, include_content,
  contact_email, headers, secret, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
