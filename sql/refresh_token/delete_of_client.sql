-- Deletes every refresh token of a client: the networks in which they were issued say where it was.
-- $1 client_id.
delete from refresh_tokens where client_id = $1
