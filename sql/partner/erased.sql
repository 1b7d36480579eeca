-- How far a partner's retention has come. $1 partner_id, $2 messages below this id.
update partners set erased_below = $2 where partner_id = $1 and erased_below < $2
