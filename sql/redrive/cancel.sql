-- A job that runs goes no further. $1 redrive_id, $2 now.
update redrives set status = 'CANCELED', finished_at = $2 where redrive_id = $1 and status = 'RUNNING'
