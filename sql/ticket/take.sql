-- Takes a ticket that is still valid; it is gone then.
-- $1 ticket_hash, $2 now.
delete from tickets where ticket_hash = $1 and valid_until > $2
returning shard, user_id, partner_id, sid, token_until, valid_until
