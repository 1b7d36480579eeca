-- $1 what was to be sent before this.
delete from destination_paces where next_at < $1
