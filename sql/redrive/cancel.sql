-- Cancels a job if it is RUNNING.
-- $1 redrive_id, $2 now.
update redrives set status = 'CANCELED', finished_at = $2 where redrive_id = $1 and status = 'RUNNING'
