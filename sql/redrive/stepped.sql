-- What a step did, and where the job stands. $1 redrive_id, $2 position, $3 how many it did, $4 until when its rate is used
-- up, $5 when it was finished (null: not yet).
update redrives
set position = $2, done = done + $3, stepped_at = $4, finished_at = $5,
  status = case when $5::timestamptz is null then status else 'DONE' end
where redrive_id = $1
