-- Sealed content: of each partner that has it sealed, among its newest messages, one for each master key that sealed any.
-- (The key's number is in the first characters.) $1 messages of a partner to look at.
select distinct on (p.partner_id, left(m.detail ->> 'sealed', 6)) m.message_id as "message_id!", m.detail::text as "detail!"
from partners p
cross join lateral (
  select n.message_id, n.detail from messages n
  where n.shard = p.shard and n.partner_id = p.partner_id
  order by n.message_id desc
  limit $1
) m
where p.encrypt_content and m.detail ? 'sealed'
order by p.partner_id, left(m.detail ->> 'sealed', 6), m.message_id desc
