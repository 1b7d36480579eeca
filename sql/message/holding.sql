-- Messages that say something of a person: by their text, or by one of their recipients.
-- $1 partner (null: all), $2 the person's address in every form, in small letters[], $3 the same as regular expressions[].
select m.shard, m.message_id
from messages m
where ($1::bigint is null or m.partner_id = $1) and (
  m.detail::text ~* any($3) or m.client_msg_id ~* any($3)
  or exists (
    select from deliveries d
    where d.shard = m.shard and d.message_id = m.message_id and (lower(d.recipient) = any($2) or lower(d.written) = any($2))))
order by m.message_id
