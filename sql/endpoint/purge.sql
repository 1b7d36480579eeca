-- Deletes endpoints that were marked DELETED before a time and have no deliveries left to release.
-- $1 updated_at before this.
delete from endpoints where status = 'DELETED' and updated_at < $1 and resumed_at is null
