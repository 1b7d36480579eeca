-- Endpoints that are PAUSED and were not changed since a time.
-- $1 updated_at before this.
select endpoint_id from endpoints where status = 'PAUSED' and updated_at < $1
