-- Endpoints that are paused and were not touched since $1.
select endpoint_id from endpoints where status = 'PAUSED' and updated_at < $1
