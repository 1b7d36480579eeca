-- Stores a ticket by its hash.
-- $1 ticket_hash, $2 shard, $3 user_id, $4 partner_id, $5 sid, $6 token_until, $7 valid_until.
insert into tickets (ticket_hash, shard, user_id, partner_id, sid, token_until, valid_until)
values ($1, $2, $3, $4, $5, $6, $7)
