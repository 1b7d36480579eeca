-- Deletes paces of destinations that could have been sent to before a time.
-- $1 next_at before this.
delete from destination_paces where next_at < $1
