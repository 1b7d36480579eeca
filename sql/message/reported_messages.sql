-- What event payloads say about the messages they report on: kind, clientMsgId, and whether a partner posted the
-- message.
-- $1 shard[], $2 message_id[], $3 and $4 the smallest and largest of those ids (partition pruning).
select m.message_id, m.kind, m.client_msg_id, m.about is null as "is_message!"
from unnest($1::smallint[], $2::bigint[]) as k(shard, message_id)
join messages m on m.shard = k.shard and m.message_id = k.message_id and m.message_id between $3 and $4
