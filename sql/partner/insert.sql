-- $1 partner_id, $2 name, $3 shard, $4 now. Another process may have been first.
insert into partners (partner_id, name, shard, created_at) values ($1, $2, $3, $4) on conflict do nothing
