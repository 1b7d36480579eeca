-- Messages of a shard with sealed content, in the order of their ids. $1 shard, $2 partner (null: all), $3 after this id,
-- $4 rows.
select shard, message_id, partner_id, detail::text as "detail!" from messages
where shard = $1 and ($2::bigint is null or partner_id = $2) and message_id > $3 and detail ? 'sealed'
order by message_id
limit $4
