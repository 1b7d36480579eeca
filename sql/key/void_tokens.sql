-- Every token of the partner's key is void. $1 partner_id.
update keys set epoch = epoch + 1 where partner_id = $1
