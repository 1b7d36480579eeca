-- Messages with sealed content, in the order of their ids. $1 partner (null: all), $2 after this id, $3 rows.
select shard, message_id, partner_id, detail::text as "detail!" from messages
where ($1::bigint is null or partner_id = $1) and message_id > $2 and detail ? 'sealed'
order by message_id
limit $3
