-- Messages of a shard with sealed content, in the order of their ids. $1 shard, $2 after this id, $3 rows.
select shard, message_id, partner_id, detail::text as "detail!" from messages
where shard = $1 and message_id > $2 and detail ? 'sealed'
order by message_id
limit $3
