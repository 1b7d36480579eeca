-- Every token of the partner's key is void, and those of a secret that was replaced with an overlap: the epoch before may
-- still be good, so it takes two. $1 partner_id.
update keys set epoch = epoch + 2 where partner_id = $1
