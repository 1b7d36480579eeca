-- Messages of a shard with encrypted content, by id.
-- $1 shard, $2 message_id after this, $3 rows at most.
select shard, message_id, partner_id, detail::text as "detail!" from messages
where shard = $1 and message_id > $2 and detail ? 'sealed'
order by message_id
limit $3
