-- Records how far the retention of a partner's content has come.
-- $1 partner_id, $2 message_id below which content is erased.
update partners set erased_below = $2 where partner_id = $1 and erased_below < $2
