-- Of each partner with encrypted content, among its newest messages, one message per master key that sealed any. (The
-- first characters of the sealed text hold the key's number.)
-- $1 newest messages per partner to read.
select distinct on (p.partner_id, left(m.detail ->> 'sealed', 6)) m.message_id as "message_id!",
  m.detail::text as "detail!"
from partners p
cross join lateral (
  select n.message_id, n.detail from messages n
  where n.shard = p.shard and n.partner_id = p.partner_id
  order by n.message_id desc
  limit $1
) m
where p.encrypt_content and m.detail ? 'sealed'
order by p.partner_id, left(m.detail ->> 'sealed', 6), m.message_id desc
