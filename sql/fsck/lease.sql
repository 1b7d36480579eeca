-- A status and its lease agree.
select message_id as "message_id!", no as "no!", status::text as "found!" from deliveries
where (status = 'PROCESSING') <> (lease_until is not null and worker is not null)
