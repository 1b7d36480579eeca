-- Deletes alerts that were closed before a time.
-- $1 cleared_at before this.
delete from alerts where cleared_at < $1
