-- Invalidates every token of a partner's key. Raises the epoch by two, because tokens of the epoch before may still be
-- valid after a rotation with overlap.
-- $1 partner_id.
update keys set epoch = epoch + 2 where partner_id = $1
